"""A registered Chroma embedding function, by its name; `options` are its config."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import chromadb
import numpy as np
from chromadb.utils.embedding_functions import known_embedding_functions

from reembed.embedders.provider import (
    Answer,
    Counts,
    Limits,
    ModelVersion,
    Price,
    TransientError,
)
from reembed.embedders.providers.foreign import meaning
from reembed.embedders.providers.tokens import estimate_tokens
from reembed.embedders.redact import redact
from reembed.errors import ManifestError, ProviderRefusedError
from reembed.manifest import Model

MAX_TOKENS = {"default": 256, "onnx_mini_lm_l6_v2": 256}
"""Both cut at 256 tokens in silence; what the others do is unknown."""


class ChromaProvider:
    """See the module."""

    def __init__(self, model: Model, base_dir: Path) -> None:
        self._where = f"the Chroma embedding function {model.name}"
        kind = known_embedding_functions.get(model.name)
        if kind is None:
            raise ManifestError(
                f"model.name: Chroma knows no embedding function {model.name!r}",
                f"It knows {', '.join(sorted(known_embedding_functions))}.",
            )
        try:
            self._function = kind.build_from_config(dict(model.options))
        except AssertionError:  # what Chroma's own functions do when a key is missing
            raise ManifestError(
                f"model.options: they are not the whole config of {self._where}",
                "Copy the config that the source collection's configuration holds.",
            ) from None
        except Exception as error:  # a missing package, a missing key, a wrong type: ValueError
            raise ProviderRefusedError(
                f"{self._where} cannot be built: {redact(str(error))}"
            ) from None
        self._told = model.max_tokens or MAX_TOKENS.get(model.name)
        self.limits = Limits(batch_items=64, max_tokens=self._told, anonymous=True)
        self.price: Price | None = None
        self.exact_tokens = False
        self.normalizes = False

    def count_tokens(self, texts: Sequence[str]) -> Counts:
        return estimate_tokens(texts)

    def embed(self, texts: Sequence[str], *, query: bool = False) -> Answer:
        embed = self._function.embed_query if query else self._function
        try:
            result = embed(input=list(texts))
        except Exception as error:  # each function raises what its own client raises
            raise meaning(error, self._where) from None
        try:
            with np.errstate(over="ignore"):
                return Answer(np.asarray(result, np.float32))
        except (TypeError, ValueError) as error:  # an error's body, passed on as if it were vectors
            words = redact(f"{type(result).__name__}, {error}: {str(result)[:200]}")
            raise TransientError(f"{self._where} gave no vectors ({words})", unknown=True) from None

    def version(self) -> ModelVersion:
        return ModelVersion(details={"chromadb": chromadb.__version__})

    def warnings(self) -> list[str]:
        if self._told is None:
            return [
                f"it is unknown how many tokens {self._where} takes, and it may cut longer texts "
                "silently: set model.max_tokens."
            ]
        return []

    def close(self) -> None:
        """Close the function's client, under the names that Chroma's own functions give it."""
        for name in ("client", "_client"):
            close = getattr(getattr(self._function, name, None), "close", None)
            if callable(close):
                close()


def open_provider(model: Model, base_dir: Path) -> ChromaProvider:
    """See `registry.open_provider`."""
    return ChromaProvider(model, base_dir)
