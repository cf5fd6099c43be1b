"""Stage 0: what a run would do, and what stands in its way. Nothing is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reembed.errors import PreflightError
from reembed.progress import human_bytes
from tests.support.awkward import LOST, awkward_collection, lose_vector
from tests.support.chroma_data import chroma, everything_in, plain_collection
from tests.support.commands import Calls, tree
from tests.support.manifests import migration, write_manifest
from tests.support.texts import vector_of


def test_a_plan_tells_what_a_run_would_do_and_writes_nothing(
    tmp_path: Path, database: Path, calls: Calls
) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}")
    before = everything_in(database), {k for k in tree(tmp_path) if not k.startswith("db/")}
    plan = migration(path).plan()
    after = everything_in(database), {k for k in tree(tmp_path) if not k.startswith("db/")}
    assert after[0] == before[0]
    assert {name for name in after[1] - before[1] if "pycache" not in name} == {"calls.jsonl"}
    assert plan.ok
    assert (plan.records, plan.dimensions, plan.metric) == (40, 64, "cosine")
    assert plan.target == "docs__counting_model-new-64"
    assert plan.swap is not None
    assert (plan.swap.kind, plan.swap.live) == ("transaction", "docs")
    assert "transaction" in plan.swap.guarantee
    assert plan.executes == ["python: counting_model:new", "python: counting_model:old"]
    estimate = plan.estimate
    assert estimate.sampled == 40
    assert estimate.tokens > 40 * 14
    assert estimate.seconds is not None
    assert estimate.state_bytes > 40 * (48 + 2 * 64) * 4
    assert estimate.stage_seconds["embed"] == round(estimate.seconds, 1)
    assert {"export", "load", "verify"} < {*estimate.stage_seconds}
    assert len(calls.texts("new")) < 60, "a sample is embedded, not everything"
    document = plan.to_dict()
    assert document["ok"] is True
    assert document["source"]["count"] == 40


def test_hooks_are_listed_as_executed(tmp_path: Path, database: Path) -> None:
    path = write_manifest(
        tmp_path, f"chroma:{database}", swap__before="echo 1", swap__after="echo 2"
    )
    assert migration(path).plan().executes[:2] == ["before: echo 1", "after: echo 2"]


def test_the_application_s_own_embedder_is_asked_for(tmp_path: Path, database: Path) -> None:
    plan = migration(write_manifest(tmp_path, f"chroma:{database}")).plan()
    (warning,) = (w for w in plan.warnings if "embed its own queries" in w.message)
    assert "errors (48 against 64 dimensions)" in warning.message
    path = write_manifest(
        tmp_path, f"chroma:{database}",
        model={"provider": "python", "name": "counting_model:other"},
    )  # fmt: skip
    plan = migration(path).plan()
    assert any("wrong answers without an error" in w.message for w in plan.warnings)
    path = write_manifest(tmp_path, f"chroma:{database}", swap__kind="pointer")
    assert any("reembed.live" in w.message for w in migration(path).plan().warnings)


def test_records_without_text_and_too_long_ones_are_foretold(tmp_path: Path) -> None:
    database = tmp_path / "awkward"
    with chroma(database) as client:
        collection = awkward_collection(client, "docs", 60)
        lose_vector(database, str(collection.id))
    path = write_manifest(tmp_path, f"chroma:{database}", model__max_tokens=500)
    plan = migration(path).plan()
    assert plan.records == 60
    assert plan.estimate.without_text == pytest.approx(5 / 60)
    assert plan.estimate.too_long == pytest.approx(1 / 60)
    said = " ".join(w.message for w in plan.warnings)
    assert "8.3% of the sampled records give no text and will be quarantined" in said
    assert "longer than 500 tokens and will be quarantined" in said
    assert plan.estimate.left_out == 6
    assert [problem.message for problem in plan.blockers] == [
        "6 of 60 sampled records will be quarantined, 6 of all 60, and verify.allow_quarantined is "
        "0: the verdict would refuse the swap"
    ]
    for way in ("model.on_too_long: mean", "text", "verify.allow_quarantined: 6"):
        assert way in plan.blockers[0].hint
    path = write_manifest(
        tmp_path, f"chroma:{database}", model__max_tokens=500, verify__allow_quarantined=6
    )
    assert migration(path).plan().ok, "as the hint says"
    path = write_manifest(
        tmp_path, f"chroma:{database}", model__max_tokens=500, model__on_too_long="mean",
        text="{id}",
    )  # fmt: skip
    plan = migration(path).plan()
    assert plan.estimate.without_text == 0
    assert any("averaged" in w.message for w in plan.warnings)
    assert LOST


def test_where_counts_what_it_matches(tmp_path: Path, database: Path) -> None:
    path = write_manifest(
        tmp_path, f"chroma:{database}", source__where={"n": {"$lt": 7}}, swap__kind="config"
    )
    assert migration(path).plan().records == 7


def test_all_blockers_are_one_refusal(tmp_path: Path, database: Path) -> None:
    with chroma(database) as client:
        plain_collection(client, "taken", 3)
    path = write_manifest(
        tmp_path, f"chroma:{database}", target__collection="taken", swap__kind="alias"
    )
    plan = migration(path).plan()
    assert len(plan.blockers) == 2
    with pytest.raises(PreflightError, match=r"alias.*and 1 more.*taken"):
        raise plan.refusal()


def test_the_run_s_own_shadow_is_no_blocker(tmp_path: Path, database: Path) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}")
    migration(path).run(until="load")
    assert migration(path).plan().ok


def test_a_live_name_too_long_to_park_is_refused_before_the_work(
    tmp_path: Path, database: Path
) -> None:
    name = "d" * 500
    with chroma(database) as client:
        made = client.create_collection(name, embedding_function=None)
        made.add(ids=["a"], documents=["a"], embeddings=[vector_of("old", "a")])
    path = write_manifest(
        tmp_path, f"chroma:{database}", source__collection=name, target__collection="short"
    )
    plan = migration(path).plan()
    assert any("swap.live" in blocker.message for blocker in plan.blockers)


def test_a_long_name_still_gets_a_target(tmp_path: Path, database: Path) -> None:
    name = "d" * 480
    with chroma(database) as client:
        made = client.create_collection(name, embedding_function=None)
        made.add(ids=["a"], documents=["a"], embeddings=[vector_of("old", "a")])
    path = write_manifest(tmp_path, f"chroma:{database}", source__collection=name)
    assert migration(path).run(swap=True).state == "swapped"


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1_000, "1.0 kB"), (1.5e9, "1.5 GB"), (3e15, "3000.0 TB")],
)
def test_human_bytes(size: float, text: str) -> None:
    assert human_bytes(size) == text


def test_a_plan_after_the_swap_says_that_it_is_done(tmp_path: Path, database: Path) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}")
    migration(path).run(swap=True)
    plan: Any = migration(path).plan()
    assert any("already swapped" in warning.message for warning in plan.warnings)
