"""Norms and hubness of vectors: shown, so that a space that is odd is seen before users feel it."""

from __future__ import annotations

from typing import Any

import numpy as np

from reembed.quality.statistics import quantiles
from reembed.records import Vectors, unit

NEIGHBOURS = 10


def vector_figures(vectors: Vectors) -> dict[str, Any]:
    """Lengths, mean cosine to the others, and hubness of some vectors `(n, d) float32`.

    Hubness is the skewness of N_k, how often each vector is among the k = 10 nearest (by cosine) of
    the others (Radovanović, Nanopoulos and Ivanović 2010, "Hubs in space", JMLR 11): near 0 no
    vector is favoured, far above it a few records answer everything. It depends on the size of the
    sample.
    """
    if len(vectors) < 2:
        return {"vectors": len(vectors)}
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    unit_vectors = unit(vectors)
    nearness = unit_vectors @ unit_vectors.T
    n = len(vectors)
    mean_cosine = float((nearness.sum(dtype=np.float64) - np.trace(nearness)) / (n * (n - 1)))
    np.fill_diagonal(nearness, -np.inf)
    k = min(NEIGHBOURS, n - 1)
    near = np.argsort(-nearness, axis=1, kind="stable")[:, :k]
    counts = np.bincount(near.ravel(), minlength=n).astype(np.float64)
    return {
        "vectors": n, "dimensions": vectors.shape[1], "lengths": quantiles(lengths),
        "mean_cosine": round(mean_cosine, 6), "k": k, "hubness": round(skewness(counts), 4),
        "most_often_found": int(counts.max()), "never_found": int((counts == 0).sum()),
    }  # fmt: skip


def skewness(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    """Third standardised moment μ3 / σ³, 0.0 without spread."""
    centred = values - values.mean()
    spread = float(np.sqrt((centred**2).mean()))
    return float((centred**3).mean()) / spread**3 if spread else 0.0
