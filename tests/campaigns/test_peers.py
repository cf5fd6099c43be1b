"""The comparison of tools: each kind of loss is found, and the page is made of what was found."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.campaigns.benchmarks.peers import corpus, losses, table
from tests.campaigns.benchmarks.peers.losses import Content, Record, Vector, lost

RECORDS = 1000


def embed(text: str) -> Vector:
    return np.array([len(text), sum(text.encode()) % 997 + 1, 1], np.float32)


def contents() -> tuple[Content, Content]:
    """The records as they were, and a perfect copy with vectors of the new model."""
    rows = list(corpus.rows(RECORDS, hard=True))
    old, new = np.ones(2, np.float32), {}
    source = {row.id: Record(row.document, row.metadata, old) for row in rows}
    for row in rows:
        if row.document:
            new[row.id] = Record(row.document, row.metadata, embed(row.document))
    return Content(source, "cosine"), Content(new, "cosine")


TEXTLESS = {
    "records without text missing": {
        "records": 2, "such as": ["hard-empty-text", "hard-no-document"],
    }
}  # fmt: skip


def test_a_perfect_copy_lacks_only_what_no_model_can_embed() -> None:
    source, target = contents()
    assert lost(source, target, embed) == TEXTLESS


def other(**changes: Any) -> Callable[[Record], Record]:
    return lambda record: replace(record, **changes)


def metadata(**changes: Any) -> Callable[[Record], Record]:
    return lambda record: replace(record, metadata={**(record.metadata or {}), **changes})


def without(key: str) -> Callable[[Record], Record]:
    def change(record: Record) -> Record:
        kept = {name: value for name, value in (record.metadata or {}).items() if name != key}
        return replace(record, metadata=kept)

    return change


@pytest.mark.parametrize(
    ("id", "change", "kind"),
    [
        ("hard-lines", other(document=None), "documents gone"),
        ("hard-long", other(document=corpus.LONG[:24_000]), "documents cut"),
        ("hard-lines", other(document="a b c d e"), "documents changed"),
        ("id0", without("half"), "float in metadata gone"),
        ("hard-bool", other(metadata=None), "metadata gone"),
        ("id0", metadata(added=1), "keys added to metadata"),
        ("hard-float", metadata(third=float(np.nextafter(1 / 3, 1))), "float in metadata changed"),
        ("hard-float", metadata(whole=2), "float in metadata became int"),
        ("hard-bool", metadata(yes=1), "bool in metadata became int"),
        ("hard-int", metadata(big=2**53), "int in metadata changed"),
        ("hard-list", metadata(words='["a", "b"]'), "list in metadata became text"),
        ("hard-list", metadata(flags=[1, 0]), "list in metadata changed"),
        ("id0", other(vector=None), "records without a vector"),
        ("id0", other(vector=np.ones(2, np.float32)), "vectors of 2 dimensions"),
        ("id0", other(vector=-embed("x")), "vectors that are not the model's"),
        ("hard-long", other(vector=embed(corpus.LONG[:24_000])),
         "vectors of the first 24,000 characters"),
    ],
)  # fmt: skip
def test_each_kind_of_loss_is_found_where_it_is(
    id: str, change: Callable[[Record], Record], kind: str
) -> None:
    source, target = contents()
    damaged = Content({**target.records, id: change(target.records[id])}, "cosine")
    assert lost(source, damaged, embed) == TEXTLESS | {kind: {"records": 1, "such as": [id]}}


def test_records_that_are_gone_or_new_and_another_metric_are_found() -> None:
    source, target = contents()
    records = {("other" if id == "id0" else id): one for id, one in target.records.items()}
    assert lost(source, Content(records, "l2"), embed) == TEXTLESS | {
        "records missing": {"records": 1, "such as": ["id0"]},
        "records that the source has not": {"records": 1, "such as": ["other"]},
        "metric": "cosine became l2",
    }


def test_chroma_keeps_the_hard_records_so_that_what_is_lost_is_the_tools_doing(
    tmp_path: Path,
) -> None:
    corpus.build_chroma(tmp_path / "store", 1000, hard=True)
    found = losses.from_chroma(str(tmp_path / "store"), "docs")
    rows = {row.id: row for row in corpus.rows(1000, hard=True)}
    assert found.metric == "cosine"
    assert {id for id in rows if id.startswith("hard")} == {row.id for row in corpus.HARD}
    assert {id: (one.document, one.metadata) for id, one in found.records.items()} == {
        id: (row.document, row.metadata) for id, row in rows.items()
    }


def took(**changes: Any) -> dict[str, Any]:
    return {
        "records": 1000, "hard": True, "code": 0, "seconds": 61.0, "cpu_seconds": 20.0,
        "peak_mb": 650, "requests": 80, "texts": 998, "tokens": 100_000, "usd": 0.002,
        "lost": TEXTLESS, "again": 400, "output": "",
    } | changes  # fmt: skip


def test_the_table_tells_what_was_lost_in_spite_of_exit_code_0() -> None:
    loss = {"records missing": {"records": 500, "such as": ["id0"]}, "metric": "cosine became l2"}
    one = {
        "tool": "other", "store": "chroma", "version": "1.2", "does": "copies", "well": "Fast.",
        "fixes": "", "released": "2026-01", "day": "2026-11-30", "few": took(lost=loss),
        "killed": took(code=1, lost=loss), "all": took(records=5000, lost=loss),
    }  # fmt: skip
    gone = {"tool": "gone", "store": "chroma", "missing": "it could not be installed"}
    text = table.page(f"before {table.BEGIN} old {table.END} after", [one, gone])
    assert text.startswith("before") and text.endswith("after") and " old " not in text
    assert "| other 1.2 | copies | 0 | records missing: 500; metric: cosine became l2 |" in text
    after = "exit 1, records missing: 500; metric: cosine became l2"
    assert f"| other 1.2, 5,000 | 0 | 61 | 20 | 650 | 80 | 998 | $0.0020 | {after} |" in text
    assert "gone is missing here: it could not be installed." in text


def test_a_tool_that_goes_on_after_a_kill_is_told_apart_from_one_that_does_not() -> None:
    one = {"tool": "t", "few": took(), "all": took(), "killed": took()}
    assert "ends as without it, 400 texts sent twice" in table._takes(one)
    short = took(lost=TEXTLESS | {"records missing": {"records": 9, "such as": ["id0"]}})
    assert "exit 0, records without text missing: 2" in table._takes(one | {"killed": short})


def test_the_page_is_what_its_figures_give() -> None:
    found = json.loads(table.FOUND.read_text())
    text = table.PAGE.read_text()
    assert text == table.page(text, found)
