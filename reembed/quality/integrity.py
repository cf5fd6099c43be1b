"""G0: one page of records as served against the same records as exported and embedded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from reembed.quality.findings import Findings
from reembed.records import (
    Metric,
    Vectors,
    bad_rows,
    cosine_rows,
    lengths_of,
    list_array_to_vectors,
    text_hash,
)

SERVED_COSINE = 0.9999
"""Stores hand a vector back within 1.5e-8 of what was loaded."""
SERVED_LENGTH = 1e-3
"""Relative difference of lengths that a store may make."""

KINDS = (
    "missing", "extra", "quarantined but loaded", "duplicated", "changed", "without a vector",
    "of wrong dimension", "not finite or zero", "with another vector", "with a vector of other "
    "length",
    "embedded from another text", "with the vector of another text", "in damaged files",
    "quarantined without a reason",
)  # fmt: skip


def check_texts(
    ids: Sequence[str], texts: Sequence[str], keys: Sequence[bytes], findings: Findings
) -> None:
    """What was embedded must be what the template gives for the exported record.

    A vector of an older version of the document, or a text that was changed on its way (another
    Unicode form, a null that became empty), shows here for every record, without the model.
    """
    findings.add(
        "embedded from another text",
        [id for id, text, key in zip(ids, texts, keys, strict=True)
         if not text.strip() or text_hash(text) != key],
    )  # fmt: skip


def check_served(
    ids: Sequence[str],
    rows: Sequence[bytes],
    vectors: Vectors,
    served: pa.RecordBatch,
    metric: Metric,
    findings: Findings,
) -> None:
    """Ids, row hashes and vectors of what the store serves.

    Args:
        ids: of the records that must be there.
        rows: their row hashes, over id, document, metadata and uri.
        vectors: `(n, d) float32`, as embedded.
        served: what the store gave for `ids`.
        metric: with cosine a store may keep vectors at length one.
    """
    there = match_served(ids, rows, served, findings)
    findings.add("changed", there.changed)
    if there.places != list(range(len(vectors))):  # all of them, in order, are not copied
        vectors = vectors[there.places]
    _check_vectors(there.ids, vectors, there.vectors, metric, findings)


@dataclass(frozen=True)
class Served:
    """Records that a store serves, of those asked for.

    Attributes:
        ids: of those that are there.
        places: of each its place among those asked for.
        vectors: of each, `list<float32>`.
        changed: ids of those whose row hash is another.
    """

    ids: list[str]
    places: list[int]
    vectors: pa.Array
    changed: list[str]


def match_served(
    ids: Sequence[str], rows: Sequence[bytes], served: pa.RecordBatch, findings: Findings
) -> Served:
    """Which of the records are there, as `check_served` has its arguments."""
    findings.checked += len(ids)
    if served.column("id").equals(pa.array(ids, pa.string())) and len(set(ids)) == len(ids):
        hashes = served.column("row_sha256")  # as nearly always: every one, in order
        others = [] if hashes.equals(pa.array(rows, hashes.type)) else hashes.to_pylist()
        changed = [id for id, row, own in zip(ids, others, rows, strict=False) if row != own]
        return Served(list(ids), list(range(len(ids))), served.column("embedding"), changed)
    served_ids = served.column("id").to_pylist()
    there = set(served_ids)
    findings.add("missing", [id for id in ids if id not in there])
    seen: set[str] = set()
    again = [id for id in served_ids if id in seen or seen.add(id)]  # type: ignore[func-returns-value]
    findings.add("duplicated", again)
    order = {id: row for row, id in enumerate(ids)}
    findings.add("extra", [id for id in served_ids if id not in order])
    kept = [row for row, id in enumerate(served_ids) if id in order]
    served_ids = [served_ids[row] for row in kept]
    served = served.take(pa.array(kept, pa.int64()))
    hashes = served.column("row_sha256").to_pylist()
    changed = [id for id, row in zip(served_ids, hashes, strict=True) if row != rows[order[id]]]
    places = [order[id] for id in served_ids]
    return Served(served_ids, places, served.column("embedding"), changed)


def comparable(
    ids: Sequence[str], expected: Vectors, column: pa.Array, findings: Findings
) -> tuple[list[str], Vectors, Vectors]:
    """Those records that have a vector of the dimension which they should have: their ids, the
    vectors that they should have, and those that they have, `(n, d) float32` both."""
    sizes = np.asarray(column.value_lengths().fill_null(-1))
    absent, odd = sizes < 0, (sizes >= 0) & (sizes != expected.shape[1])
    findings.add("without a vector", _where(ids, absent))
    findings.add("of wrong dimension", _where(ids, odd))
    fine = ~(absent | odd)
    if fine.all():
        return list(ids), expected, list_array_to_vectors(column)[0]
    vectors, _ = list_array_to_vectors(column.filter(pa.array(fine)))
    return _where(ids, fine), expected[fine], vectors


def _check_vectors(
    ids: Sequence[str], expected: Vectors, column: pa.Array, metric: Metric, findings: Findings
) -> None:
    ids, expected, vectors = comparable(ids, expected, column, findings)
    if not ids:
        return
    bad = bad_rows(vectors)
    findings.add("not finite or zero", _where(ids, bad))
    near = ~bad & ~(vectors == expected).all(axis=1)  # nearly always none: the same, bit for bit
    ids, expected, vectors = _where(ids, near), expected[near], vectors[near]
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        cosines = cosine_rows(vectors, expected)
        lengths = lengths_of(vectors)
        ratio = lengths / lengths_of(expected)
        other = ~(cosines >= SERVED_COSINE)
        stretched = ~other & ~(np.abs(ratio - 1) <= SERVED_LENGTH)
        if metric == "cosine":
            stretched &= ~(np.abs(lengths - 1) <= SERVED_LENGTH)
    findings.add("with another vector", _where(ids, other))
    findings.add("with a vector of other length", _where(ids, stretched))


def _where(ids: Sequence[str], mask: npt.NDArray[np.bool_]) -> list[str]:
    return [ids[row] for row in np.flatnonzero(mask).tolist()]


def slice_bounds(part: str) -> tuple[int, int]:
    """`3/7` as (3, 7): the third of seven slices.

    Raises:
        ValueError: it is not n/t with 1 <= n <= t.
    """
    first, separator, second = part.partition("/")
    if not (separator and first.isascii() and first.isdigit() and second.isascii()
            and second.isdigit() and 1 <= int(first) <= int(second)):  # fmt: skip
        raise ValueError(f"{part!r} is not a slice: write n/t, such as 3/7, with n from 1 to t")
    return int(first), int(second)


def slice_rows(total: int, number: int, of: int) -> range:
    """The rows of slice `number` of `of`, of `total` rows in shard order; together they are all."""
    return range(total * (number - 1) // of, total * number // of)
