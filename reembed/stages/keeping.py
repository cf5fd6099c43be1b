"""Embed some texts outside of the shards, with every batch kept in the cache as it is paid for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from reembed.embedders.embedder import Embedder
from reembed.records import Vectors, text_hash
from reembed.run.vector_cache import VectorCache


def embed_keeping(
    embedder: Embedder, cache: VectorCache, texts: Sequence[str]
) -> tuple[Vectors, npt.NDArray[np.bool_]]:
    """Vectors `(n, d) float32`, and which there are, `(n,) bool`. Every batch is kept in the cache,
    so that a call killed half-way does not pay for it again."""
    keys = [text_hash(text) for text in texts]
    known = cache.get(keys)
    new = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
    if new:
        wanted = list(new)
        embedder.embed_documents(
            list(new.values()),
            on_batch=lambda indices, vectors, tokens: cache.put(
                [wanted[index] for index in indices], vectors, tokens
            ),
        )
        known = cache.get(keys)
    found = np.zeros((len(texts), embedder.dimensions), np.float32)
    for row, key in enumerate(keys):
        if key in known:
            found[row] = known[key][0]
    return found, np.array([key in known for key in keys], bool)
