"""Embedders that stay open as long as the process does, one for each model: for applications."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from reembed.embedders.embedder import Embedder
from reembed.embedders.registry import open_embedder
from reembed.errors import PreflightError
from reembed.manifest import Model
from reembed.records import Vectors


@lru_cache(maxsize=8)
def _opened(model: str) -> Embedder:
    return open_embedder(Model.model_validate_json(model))


def embed(model: Model, texts: Sequence[str], *, query: bool) -> Vectors:
    """Vectors `(n, d) float32` of texts, by a model that is kept open.

    Raises:
        PreflightError: a document cannot be embedded (too long, empty); nothing is left out.
        UnreachableError: the provider is out of reach.
    """
    embedder = _opened(model.model_dump_json())
    if query:
        return embedder.embed_queries(list(texts))
    embedded = embedder.embed_documents(list(texts))
    if embedded.rejected:
        place, rejection = min(embedded.rejected.items())
        raise PreflightError(f"document {place} of {len(texts)} cannot be embedded: {rejection}")
    return embedded.vectors
