"""What a plan says where vectors are moved as they are: no cost, and what a new metric changes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from reembed.records import Metric, Vectors, lengths_of, list_array_to_vectors
from reembed.stages.estimate import CHROMA_TEXT_FACTOR, SAMPLE, Estimate
from reembed.stages.session import Session
from reembed.stages.swap_kind import SwapPlan
from reembed.stages.weigh import Problem, Weighed
from reembed.stores.collection import Collection
from reembed.stores.values import CollectionInfo, kept_dimensions

ALIKE = 1e-3
"""Relative difference of lengths below which they rank alike."""


def weigh_kept(s: Session, source: CollectionInfo, records: int) -> Weighed:
    """What it takes to move so many records with their vectors, from a sample of them."""
    manifest, dimensions = s.manifest, kept_dimensions(source)
    rows = Collection(s.source_store, source.id, manifest.source.where).some(SAMPLE, vectors=True)
    sizes = np.asarray(rows.column("embedding").value_lengths().fill_null(-1))
    fit = sizes == dimensions
    names = ("document", "metadata", "uri")
    text_bytes = sum(
        len(value.encode()) for name in names for value in rows.column(name).to_pylist() if value
    )
    texts, vectors = round(text_bytes / max(1, len(fit)) * records), records * dimensions * 4
    local = s.store.catalog.capabilities.local_path is not None
    left_out = int((~fit).sum())
    estimate = Estimate(
        sampled=len(fit), tokens=0, new_tokens=0, verify_tokens=0, requests=0, exact_tokens=True,
        without_text=0.0, too_long=0.0, left_out=left_out, usd=0.0, price_as_of=None, seconds=None,
        state_bytes=texts + 2 * vectors,
        store_bytes=CHROMA_TEXT_FACTOR * texts + 2 * vectors if local else 0, text_bytes=texts,
    )  # fmt: skip
    weighed = Weighed(estimate)
    if left_out:
        told = Problem(
            f"{left_out:,} of {len(fit):,} sampled records have no vector of {dimensions} "
            "dimensions and will be quarantined, since model: keep embeds nothing",
            "Give them one first (a migration with a model does), leave them out with "
            "source.where, or let some be left out with verify.allow_quarantined.",
        )
        too_many = left_out > manifest.verify.allow_quarantined
        (weighed.blockers if too_many else weighed.warnings).append(told)
    target = manifest.target.metric or source.metric
    sample, _ = list_array_to_vectors(rows.column("embedding").filter(fit))
    weighed.warnings += _metric_warnings(source.metric, target, sample)
    return weighed


def _metric_warnings(before: Metric, after: Metric, sample: Vectors) -> list[Problem]:
    """Args: sample: vectors of the source, `(n, d) float32`."""
    if before == after or not len(sample):
        return []
    lengths = lengths_of(sample)
    told = [Problem(
        f"the metric changes from {before} to {after}, and so does every score that a search "
        "gives: a threshold of the application's means something else after the swap",
        "Set such thresholds anew, with the swap.",
    )]  # fmt: skip
    zero = int((lengths == 0).sum())
    if zero and after == "cosine":
        told.append(Problem(
            f"{zero:,} of {len(sample):,} sampled vectors are zero: they have no direction, so "
            "with cosine no search finds them",
        ))  # fmt: skip
    return [*told, _order_warning(after, lengths)]


def _order_warning(after: Metric, lengths: npt.NDArray[np.float64]) -> Problem:
    low, high = float(lengths.min()), float(lengths.max())
    if high - low <= ALIKE * high:
        return Problem(
            f"all {len(lengths):,} sampled vectors have the same length, {high:.4g}, so the order "
            "of a search's answers stays as it is"
        )
    return Problem(
        f"the sampled vectors are of different lengths, {low:.4g} to {high:.4g}, so with {after} "
        "searches give other answers, in another order",
        "The verdict shows how many (overlap). Look at it before the swap.",
    )


def kept_application_warning(swap: SwapPlan | None, target: str, url: str) -> Problem:
    """What an application has to change where its model stays.

    Args:
        target: name of the new collection.
        url: of its store.
    """
    if swap is not None and swap.kind == "config":
        return Problem(
            f"the application goes on embedding its queries with the model that it has; what "
            f"changes is where it finds the collection: {target!r} at {url}"
        )
    if swap is not None and swap.kind == "pointer":
        return Problem("applications must open the live name through reembed.live to follow it")
    return Problem(
        "the application goes on embedding its queries with the model that it has, and finds the "
        "new collection under the name that it reads"
    )
