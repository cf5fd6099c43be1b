"""The vectors of the probe texts, by which a model is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from reembed.embedders.fingerprint import PROBES
from reembed.embedders.sending.call import Embedded
from reembed.embedders.sending.manner import Manner
from reembed.errors import ProviderRefusedError
from reembed.manifest import Model
from reembed.records import Vectors

Ask = Callable[[Sequence[str], str, Manner], Embedded]
Shorten = Callable[[str, str], str]
"""As much of a text as the model takes after a prefix."""


def probe_vectors(ask: Ask, shorten: Shorten, model: Model, where: str) -> Vectors:
    """`(p, d) float32`, of the probes as documents and of the first as a query.

    Args:
        where: names the model, for messages.

    Raises:
        ProviderRefusedError: it refuses one of them.
        Exception: whatever else `ask` raises.
    """

    def vectors(texts: Sequence[str], prefix: str, *, query: bool) -> Vectors:
        short = [shorten(text, prefix) for text in texts]
        embedded = ask(short, prefix, Manner(query=query, guarded=not query, fitted=False))
        for rejection in embedded.rejected.values():
            raise ProviderRefusedError(f"{where} refuses a probe text: {rejection.detail}")
        return embedded.vectors

    texts = [text for _, text in PROBES]
    documents = vectors(texts, model.document_prefix, query=False)
    return np.concatenate([documents, vectors(texts[:1], model.query_prefix, query=True)])
