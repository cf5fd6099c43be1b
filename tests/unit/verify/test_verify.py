"""Verifying a migration on a real Chroma: what each gate says of it, and of what was done to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from chromadb.api.models.Collection import Collection

from reembed.errors import GateError, UsageError
from reembed.quality.verdict import Gate, Verdict
from reembed.run import events
from tests.support.chroma_data import chroma, plain_collection
from tests.support.commands import Command
from tests.support.following import follows_hint
from tests.support.manifests import migration, run_dir, write_manifest
from tests.support.texts import WORDS, vector_of

COUNT = 300


@pytest.fixture
def moved(tmp_path: Path) -> Path:
    """The manifest of a run that is verified and not swapped."""
    with chroma(tmp_path / "db") as client:
        plain_collection(client, count=COUNT)
    path = write_manifest(tmp_path, "chroma:./db", verify__sample=100)
    result = migration(path).run()
    assert result.state == "verified"
    return path


def gates(verdict: Verdict | None) -> dict[str, Gate]:
    assert verdict is not None
    return {gate.name: gate for gate in verdict.gates}


def verify(path: Path) -> dict[str, Gate]:
    return gates(migration(path).verify().verdict)


class Shadow:
    """The shadow, for a test to damage."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __iter__(self) -> Iterator[Collection]:
        name = run_dir(self.path).history.shadow_name
        with chroma(self.path.parent / "db") as client:
            yield client.get_collection(name, embedding_function=None)


def test_a_good_run_passes_and_shows_the_rest(moved: Path):
    found = verify(moved)
    assert {name: gate.status for name, gate in found.items()} == {
        "integrity": "pass", "opening": "pass", "fidelity": "pass", "index": "pass",
        "recall": found["recall"].status,
        "overlap": "shown", "vectors": "shown", "latency": "shown",
    }  # fmt: skip
    assert found["recall"].status in ("pass", "shown")
    assert found["fidelity"].figures["sample"] == COUNT  # fewer than sampled: all of them
    assert found["latency"].figures["new"]["median"] > 0
    assert found["latency"].figures["old"]["p95"] > 0
    assert (run_dir(moved).path / "verdict.json").stat().st_size < 300_000


def test_a_verdict_can_be_computed_again_but_for_latencies_and_the_index(moved: Path):
    """Chroma builds what it has not synced anew at each opening, so its recall may move a
    little."""
    first, second = verify(moved), verify(moved)
    for name in first.keys() - {"latency", "index"}:
        assert first[name] == second[name], name
    assert abs(first["index"].figures["recall"] - second["index"].figures["recall"]) < 0.02


def test_a_dropped_and_an_extra_record_are_found(moved: Path):
    for shadow in Shadow(moved):
        shadow.delete(["r17"])
        shadow.add(ids=["new"], documents=["x"], embeddings=[vector_of("new", "x")])
    gate = verify(moved)["integrity"]
    assert gate.status == "fail"
    assert gate.samples == {"missing": ["r17"], "extra": ["new"]}


def test_changed_metadata_and_vectors_are_found(moved: Path):
    for shadow in Shadow(moved):
        shadow.update(ids=["r3"], metadatas=[{"n": 3.0}])
        shadow.update(ids=["r4"], embeddings=[vector_of("new", "another text")])
    gate = verify(moved)["integrity"]
    assert gate.samples == {"changed": ["r3"], "with another vector": ["r4"]}


def test_another_index_metric_is_found(tmp_path: Path):
    with chroma(tmp_path / "db") as client:
        plain_collection(client, count=COUNT)
    path = write_manifest(tmp_path, "chroma:./db", verify__sample=100)
    migration(path).run(until="load")
    name = run_dir(path).history.shadow_name
    with chroma(tmp_path / "db") as client:  # somebody builds it again, with Chroma's default
        page = client.get_collection(name, embedding_function=None).get(
            include=["documents", "metadatas", "embeddings"]
        )
        client.delete_collection(name)
        made = client.create_collection(name, embedding_function=None)
        made.add(ids=page["ids"], documents=page["documents"], metadatas=page["metadatas"],
                 embeddings=page["embeddings"])  # fmt: skip
        run_dir(path).history.record(events.ShadowCreated(id=str(made.id), name=name))
    gate = verify(path)["index"]
    assert gate.status == "fail"
    assert "ranks by l2" in gate.message


def test_a_weak_index_is_found_and_what_would_help_is_measured(tmp_path: Path):
    """Weak clusters, a thin graph and a search list of 1: the neighbours are not reached."""
    (tmp_path / "clustered.py").write_text(
        "import zlib\nimport numpy as np\n\n\ndef embed(texts):\n"
        "    rows = [np.random.default_rng(zlib.crc32(t.encode())).normal(size=64) for t in "
        "texts]\n"
        "    return np.array(rows, np.float32)\n"
    )
    with chroma(tmp_path / "db") as client:
        plain_collection(client, count=1_500)
    path = write_manifest(
        tmp_path, "chroma:./db", verify__sample=100, verify__index_recall=0.9,
        model={"provider": "python", "name": "clustered:embed", "dimensions": 64},
        target__index={"ef_search": 1, "max_neighbors": 4, "ef_construction": 4},
    )  # fmt: skip
    gate = gates(migration(path).run().verdict)["index"]
    assert gate.status == "fail"
    assert "ef_search" in gate.message
    tried = gate.figures["deeper"]
    assert [one["asked"] for one in tried] == sorted(one["asked"] for one in tried)
    assert tried[-1]["recall"] > gate.figures["recall"]


def judged_files(folder: Path, count: int) -> tuple[str, str]:
    """Queries that are parts of the texts r0, r1, ... and say so."""
    with chroma(folder / "db") as client:
        page = client.get_collection("docs", embedding_function=None).get(limit=count)
    documents = page["documents"]
    assert documents is not None
    queries, qrels = folder / "q.jsonl", folder / "r.tsv"
    queries.write_text(
        "".join(
            json.dumps({"_id": f"q{n}", "text": text}) + "\n" for n, text in enumerate(documents)
        )
    )
    judged = [f"q{n}\t{id}\t1\n" for n, id in enumerate(page["ids"])]
    qrels.write_text("query-id\tcorpus-id\tscore\n" + "".join(judged) + "q0\tstranger\t1\n")
    return str(queries), str(qrels)


def test_judged_queries_gate(moved: Path):
    queries, qrels = judged_files(moved.parent, 200)
    path = write_manifest(moved.parent, "chroma:./db", verify__sample=100, verify__queries=queries,
                          verify__qrels=qrels)  # fmt: skip
    recall = verify(path)["recall"]
    assert (recall.status, recall.figures["kind"], recall.figures["queries"]) == (
        "pass",
        "judged",
        200,
    )
    assert recall.figures["judged_records_not_here"] == 1
    Path(qrels).write_text("query-id\tcorpus-id\tscore\nq1\tstranger\t1\n")
    recall = verify(path)["recall"]
    assert recall.status == "inconclusive"
    assert "no record" in recall.message


def test_fewer_than_100_judged_queries_are_refused(moved: Path):
    queries, qrels = judged_files(moved.parent, 99)
    path = write_manifest(moved.parent, "chroma:./db", verify__sample=100, verify__queries=queries,
                          verify__qrels=qrels)  # fmt: skip
    result = migration(path).verify()
    assert result.exit_code == 4
    assert gates(result.verdict)["recall"].status == "inconclusive"
    with pytest.raises(GateError):
        migration(path).swap()


def test_a_log_of_queries_is_compared_and_never_gates(moved: Path):
    queries, _ = judged_files(moved.parent, 50)
    path = write_manifest(moved.parent, "chroma:./db", verify__sample=100, verify__queries=queries)
    found = verify(path)
    assert (found["overlap"].figures["source"], found["overlap"].figures["queries"]) == ("log", 50)
    assert found["recall"].figures["kind"] == "known-item"
    assert found["index"].figures["queries"] == 150
    shown = found["overlap"].figures["most_changed"][0]
    assert {"query", "old", "new", "jaccard", "rbo"} <= set(shown)


def test_an_old_model_that_is_gone_is_said_to_be(tmp_path: Path):
    with chroma(tmp_path / "db") as client:
        plain_collection(client, count=COUNT)
    model = {"provider": "openai", "name": "text-embedding-3-small"}
    path = write_manifest(tmp_path, "chroma:./db", verify__sample=100, source__model=model)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("OPENAI_API_KEY", raising=False)
        found = gates(migration(path).run().verdict)
    assert found["recall"].status == "shown"
    assert "cannot be called" in found["recall"].message
    assert "overlap" not in found
    assert "old" not in found["latency"].figures
    assert found["vectors"].figures["old"]["vectors"] == 100  # the old vectors are still there


def test_an_old_model_that_did_not_make_the_source_is_not_asked(tmp_path: Path):
    with chroma(tmp_path / "db") as client:
        plain_collection(client, count=COUNT)
    model = {"provider": "python", "name": "counting_model:other"}
    path = write_manifest(tmp_path, "chroma:./db", verify__sample=100, source__model=model)
    recall = gates(migration(path).run().verdict)["recall"]
    assert recall.status == "shown"
    assert "other vectors than the source holds" in recall.message


# Slices


def test_slices_check_all_records_between_them(moved: Path):
    checked = 0
    for number in range(1, 8):
        result = migration(moved).verify(slice=f"{number}/7")
        (gate,) = gates(result.verdict).values()
        assert (gate.name, gate.status, result.exit_code) == ("integrity", "pass", 0)
        checked += gate.figures["checked"]
    assert checked == COUNT


def test_a_slice_sees_its_own_records_alone_and_every_slice_sees_the_count(moved: Path):
    for shadow in Shadow(moved):
        shadow.update(ids=["r1"], metadatas=[{"n": -1}])
    statuses = [migration(moved).verify(slice=f"{number}/3").exit_code for number in (1, 2, 3)]
    assert sorted(statuses) == [0, 0, 4]
    for shadow in Shadow(moved):
        shadow.delete(["r2"])
    assert migration(moved).verify(slice="3/3").exit_code == 4


def test_a_slice_never_licenses_a_swap(tmp_path: Path):
    with chroma(tmp_path / "db") as client:
        plain_collection(client, count=COUNT)
    path = write_manifest(tmp_path, "chroma:./db", verify__sample=100)
    migration(path).run(until="load")
    assert migration(path).verify(slice="1/1").exit_code == 0
    with pytest.raises(GateError, match="no verdict"):
        migration(path).swap()
    assert not (run_dir(path).path / "verdict.json").exists()


@follows_hint("Use `reembed verify` to check everything again.")
def test_a_slice_that_fails_takes_the_licence_away_until_all_is_verified(moved: Path):
    for shadow in Shadow(moved):
        shadow.update(ids=["r1"], metadatas=[{"n": -1}])
    assert 4 in [migration(moved).verify(slice=f"{number}/2").exit_code for number in (1, 2)]
    with pytest.raises(GateError, match="slice"):
        migration(moved).swap()
    for shadow in Shadow(moved):
        shadow.update(ids=["r1"], metadatas=[{"n": 1}])
    assert migration(moved).verify().exit_code == 0
    assert migration(moved).swap().done


def test_the_command_takes_a_slice_and_refuses_an_impossible_one(
    moved: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    command = Command(capsys, monkeypatch)
    for part in ("0/3", "4/3", "x", "1", "1/0"):
        with pytest.raises(UsageError, match="slice"):
            migration(moved).verify(slice=part)
    assert command("verify", moved, "--slice", "9/3", "--json").json["error"]["exit_code"] == 2
    shown = command("verify", moved, "--slice", "2/3", "--json")
    assert shown.code == 0
    (gate,) = shown.json["verdict"]["gates"]
    assert gate["figures"]["slice"] == "2/3"
    assert "slice 2 of 3" in gate["message"]


def test_equal_vectors_that_the_model_itself_gives_are_no_fault(tmp_path: Path):
    """A model that does not tell case apart, as uncased BERT."""
    (tmp_path / "uncased.py").write_text(
        "import zlib\nimport numpy as np\n\n\ndef embed(texts):\n"
        "    rows = [np.random.default_rng(zlib.crc32(t.lower().encode())).normal(size=32)\n"
        "            for t in texts]\n    return np.array(rows, np.float32)\n"
    )
    with chroma(tmp_path / "db") as client:
        made = plain_collection(client, count=COUNT)
        text = " ".join(WORDS[:9])
        for id, same in (("lower", text), ("upper", text.upper())):
            made.add(ids=[id], documents=[same], embeddings=np.ones((1, 48), np.float32))
    path = write_manifest(
        tmp_path, "chroma:./db", verify__sample=100,
        model={"provider": "python", "name": "uncased:embed", "dimensions": 32},
    )  # fmt: skip
    gate = gates(migration(path).run().verdict)["integrity"]
    assert gate.status == "pass"
    assert gate.figures["equal_vectors"] == {"checked": 1, "by_the_model": 1}
