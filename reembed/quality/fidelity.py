"""G1: a sample embedded again, against what the store serves."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from reembed.quality.findings import SAMPLES
from reembed.quality.sample import Sample
from reembed.quality.statistics import histogram, quantiles
from reembed.quality.tail import TailProbe
from reembed.quality.verdict import Gate
from reembed.records import Metric, Vectors, cosine_rows, lengths_of, list_array_to_vectors, unit

FIDELITY_COSINE = 0.999
"""Servers answer the same text with vectors up to 1.6e-4 apart, batch against single; another
model, prefix or truncation moves them much further."""
FIDELITY_LENGTH = 0.01
"""Relative difference of lengths: a prefix of a vector that was not scaled again is shorter."""
COLLAPSED = 0.5
"""A model with fewer different vectors than this share of different texts tells nothing apart."""

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Anew:
    """What a model gives texts now.

    Attributes:
        vectors: `(n, d) float32`.
        rejected: positions of the texts that it refuses.
    """

    vectors: Vectors
    rejected: Collection[int] = ()


def fidelity_gate(
    sample: Sample,
    texts: Sequence[str],
    anew: Anew,
    served: pa.RecordBatch,
    metric: Metric,
    tail: TailProbe,
) -> Gate:
    """Every sampled record's served vector must be the one that the model gives its text now.

    Args:
        texts: of `sample.ids`, in their order.
        anew: what the model says to them now.
        served: what the store gave for `sample.ids`.
    """
    ids, again, rejected = sample.ids, anew.vectors, anew.rejected
    figures: dict[str, Any] = {
        "sample": len(ids), "limit": FIDELITY_COSINE, **sample.to_dict(), "tail": tail.to_dict()
    }  # fmt: skip
    if not ids:
        return Gate("fidelity", "fail", "there is no record to embed again", figures)
    vectors, there = _served_vectors(ids, served, again.shape[1])
    judged = there.copy()
    judged[list(rejected)] = False
    cosines, lengths = np.zeros(len(ids)), np.zeros(len(ids))
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        cosines[judged] = np.nan_to_num(cosine_rows(vectors[judged], again[judged]))
        lengths[judged] = np.nan_to_num(lengths_of(vectors[judged]) / lengths_of(again[judged]))
    off = judged & (cosines < FIDELITY_COSINE)
    stretched = judged & ~off & (np.abs(lengths - 1) > FIDELITY_LENGTH)
    if metric == "cosine":  # a store may keep vectors at length one; then only direction is served
        stretched &= np.abs(lengths_of(vectors) - 1) > FIDELITY_LENGTH
    foreign = _holds_another(vectors, again, texts, off)
    different = len(set(texts))
    collapsed = different > 1 and len(np.unique(again, axis=0)) < COLLAPSED * different

    named = {
        "other vector": [ids[row] for row in np.flatnonzero(off)],
        "vector of another record": [ids[row] for row in np.flatnonzero(foreign)],
        "other length": [ids[row] for row in np.flatnonzero(stretched)],
        "refused": [ids[row] for row in rejected],
        "not served": [ids[row] for row in np.flatnonzero(~there)],
    }
    problems = _problems({kind: len(found) for kind, found in named.items()}, len(ids))
    if collapsed:
        problems.append(
            f"the model gives {different:,} different texts less than half as many vectors"
        )
    if tail.seen is False:
        problems.append(
            f"the end of a text of {tail.tokens:,} tokens does not move its vector: texts are cut "
            "before the model sees them whole"
        )
    seen = cosines[judged]
    lowest = min(0.99, float(seen.min())) if len(seen) else 0.99
    figures |= {
        "below": int(off.sum()), "other_length": int(stretched.sum()),
        "refused_now": len(rejected), "not_served": int((~there).sum()),
        "lowest_cosine": round(float(seen.min()), 6) if len(seen) else None,
        "median_cosine": round(float(np.median(seen)), 6) if len(seen) else None,
        "cosines": quantiles(seen),
        "cosine_histogram": histogram(seen.clip(-1, 1), 20, lowest, 1.0),
    }  # fmt: skip
    message = "; ".join(problems) or _passed(sample, float(seen.min()), tail)
    return Gate(
        "fidelity", "fail" if problems else "pass", message, figures,
        {kind: found[:SAMPLES] for kind, found in named.items() if found},
    )  # fmt: skip


def _problems(counts: dict[str, int], size: int) -> list[str]:
    of = f"of {size:,} sampled records"
    problems = []
    if off := counts["other vector"]:
        foreign = counts["vector of another record"]
        problems.append(
            f"{off:,} {of} have another vector when embedded again"
            + (f" ({foreign:,} hold the vector of another record)" if foreign else "")
        )
    if stretched := counts["other length"]:
        problems.append(
            f"{stretched:,} {of} have a vector of another length (not normalised again?)"
        )
    if refused := counts["refused"]:
        problems.append(f"{refused:,} {of} are refused by the model now")
    if absent := counts["not served"]:
        problems.append(f"{absent:,} {of} are missing or have another dimension")
    return problems


def _passed(sample: Sample, lowest: float, tail: TailProbe) -> str:
    figures = sample.to_dict()
    found = f"{len(sample.ids):,} sampled records embedded again, lowest cosine {lowest:.5f}; "
    if sample.spread >= sample.total:
        found += "that is every record"
    else:
        share = figures["seen_from_share"]
        found += (
            f"this would catch, with 99 % confidence, a fault in {share:.2%} of the records or in "
            f"{sample.distance:,} consecutive ones"
        )
    if tail.seen is None:
        found += "; the model refused the tail probe"
    return found


def _served_vectors(ids: Sequence[str], served: pa.RecordBatch, d: int) -> tuple[Vectors, Mask]:
    """`(n, d) float32` in the order of `ids`, zeros where there is none, and which there are."""
    column = served.column("embedding")
    right = np.asarray(column.value_lengths().fill_null(-1)) == d
    vectors = np.zeros((len(ids), d), np.float32)
    there = np.zeros(len(ids), bool)
    if right.any():
        found, _ = list_array_to_vectors(column.filter(pa.array(right)))
        place = {id: row for row, id in enumerate(ids)}
        served_ids = served.column("id").to_pylist()
        rows = [place[served_ids[row]] for row in np.flatnonzero(right)]
        vectors[rows] = found
        there[rows] = True
    return vectors, there


def _holds_another(vectors: Vectors, again: Vectors, texts: Sequence[str], off: Mask) -> Mask:
    """Of the rows that are off, those whose served vector is that of another sampled text."""
    found = np.zeros(len(texts), bool)
    rows = np.flatnonzero(off)
    usable = np.flatnonzero(lengths_of(again) > 0)
    rows = rows[np.isfinite(vectors[rows]).all(axis=1) & (lengths_of(vectors[rows]) > 0)]
    if len(rows) and len(usable):
        nearness = unit(vectors[rows]) @ unit(again[usable]).T
        best = nearness.argmax(axis=1)
        for place, row in enumerate(rows.tolist()):
            other = int(usable[best[place]])
            near = nearness[place, best[place]] >= FIDELITY_COSINE
            found[row] = near and texts[other] != texts[row]
    return found
