from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from reembed.quality.findings import Findings
from reembed.quality.integrity import (
    KINDS,
    check_served,
    check_texts,
    slice_bounds,
    slice_rows,
)
from reembed.records import Metric, export_batch, row_hash, text_hash, vectors_to_list_array

IDS = ["a", "b", "c", "d"]
VECTORS = np.eye(4, dtype=np.float32) + 0.1


def found(
    vectors: np.ndarray | pa.Array = VECTORS,
    ids: list[str] = IDS,
    documents: list[str | None] | None = None,
    metric: Metric = "cosine",
) -> dict[str, list[str]]:
    """What is found where the store serves this, and four plain records are expected."""
    findings = Findings(KINDS)
    column = vectors if isinstance(vectors, pa.Array) else vectors_to_list_array(vectors)
    given = documents or [f"text {id}" for id in ids]
    served = export_batch(ids, given, ["null"] * len(ids), [None] * len(ids), column)
    rows = [row_hash(id, f"text {id}", "null", None) for id in IDS]
    check_served(IDS, rows, VECTORS, served, metric, findings)
    assert findings.checked == 4
    return findings.samples


def test_what_is_as_it_should_be_finds_nothing():
    assert found() == {}


def test_missing_changed_doubled_and_foreign_records():
    assert found(VECTORS[:3], IDS[:3]) == {"missing": ["d"]}
    assert found(documents=["text a", "text b", "", "text d"]) == {"changed": ["c"]}
    assert found(documents=["text a", "text b", None, "text d"]) == {"changed": ["c"]}
    assert found(VECTORS[[0, 1, 2, 3, 1]], [*IDS, "b"]) == {"duplicated": ["b"]}
    assert found(VECTORS[[0, 1, 2, 3, 1]], [*IDS, "e"]) == {"extra": ["e"]}


def test_vectors_that_are_bad_other_or_stretched():
    for value, kind in ((np.nan, "not finite or zero"), (np.inf, "not finite or zero"),
                        (0, "not finite or zero")):  # fmt: skip
        bad = VECTORS.copy()
        bad[1] = value
        assert found(bad) == {kind: ["b"]}
    swapped = VECTORS[[1, 0, 2, 3]]
    assert found(swapped) == {"with another vector": ["a", "b"]}
    longer = VECTORS.copy()
    longer[2] *= 1.01
    assert found(longer) == {"with a vector of other length": ["c"]}


def test_a_store_may_keep_cosine_vectors_at_length_one():
    units = VECTORS / np.linalg.norm(VECTORS, axis=1)[:, None]
    assert found(units) == {}
    assert set(found(units, metric="ip")) == {"with a vector of other length"}


def test_vectors_that_are_absent_or_of_other_dimensions_hide_no_others():
    column = pa.array(
        [[1.0, 0, 0, 0], None, [1.0, 0], [0.1, 0.1, 0.1, 1.1]], pa.list_(pa.float32())
    )
    assert found(column) == {
        "without a vector": ["b"], "of wrong dimension": ["c"], "with another vector": ["a"],
    }  # fmt: skip


def test_vectors_come_back_within_what_stores_round():
    assert found(VECTORS * np.float32(1 + 1e-5)) == {}


def test_the_text_embedded_must_be_the_text_exported():
    findings = Findings(KINDS)
    keys = [text_hash("one"), text_hash("two then"), text_hash(" ")]
    check_texts(["a", "b", "c"], ["one", "two", " "], keys, findings)
    assert findings.samples == {"embedded from another text": ["b", "c"]}
    assert findings.problems() == ["2 embedded from another text"]


def test_samples_are_few_and_counts_are_whole():
    findings = Findings(KINDS)
    for start in (0, 15, 30):
        findings.add("missing", [f"r{i}" for i in range(start, start + 15)])
    assert findings.counts["missing"] == 45
    assert len(findings.samples["missing"]) == 20


@pytest.mark.parametrize("total", [0, 1, 6, 7, 100, 12_345])
@pytest.mark.parametrize("of", [1, 3, 7])
def test_slices_together_are_every_row_once(total: int, of: int):
    rows = [row for number in range(1, of + 1) for row in slice_rows(total, number, of)]
    assert rows == list(range(total))


def test_slices_are_named_n_of_t():
    assert slice_bounds("3/7") == (3, 7)
    for wrong in (
        "",
        "3",
        "0/7",
        "8/7",
        "-1/7",
        "3/",
        "/7",
        "a/b",
        "3/7/9",
        "1.5/7",
        "³/7",
        " 3/7",
    ):
        with pytest.raises(ValueError, match="n/t"):
            slice_bounds(wrong)
