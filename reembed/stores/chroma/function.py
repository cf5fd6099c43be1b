"""The embedding function `reembed`, and the opening of one that a collection has on record.

It is registered by `import reembed.live` and embeds as the manifest says. What a new collection
keeps is in `keeping.py`, what is read back from one in `recorded.py`; that is a store's word, and
`embedders.recorded` says what of it is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any

from chromadb.api.types import Documents, EmbeddingFunction, Embeddings, Space
from chromadb.utils.embedding_functions import (
    known_embedding_functions,
    register_embedding_function,
)

from reembed.embedders import kept
from reembed.embedders.recorded import believe, trust
from reembed.errors import PreflightError
from reembed.manifest import Model
from reembed.stores.chroma.function_settings import NAME, settings


@register_embedding_function
class ReembedEmbeddingFunction(EmbeddingFunction[Documents]):
    """A manifest's model as a Chroma embedding function, prefixes and normalisation included.

    Building it needs neither network nor key; the embedder is opened at the first text, once a
    process, because Chroma builds the function anew at every query. Who makes one with a model of
    its own gives its word for that model; one that Chroma builds from what a store has on record
    embeds only what `embedders.recorded` believes, and else refuses at the first text.
    """

    def __init__(self, model: Model) -> None:
        trust(model)
        self._model: Model | None = model
        self._config = settings(model)

    @property
    def model(self) -> Model:
        """The model to embed with.

        Raises:
            PreflightError: it is a store's word, which is not enough for it.
        """
        if self._model is not None:
            return self._model
        recorded = believe(self._config)
        assert recorded is not None, "there is a config"
        if recorded.model is None:
            raise recorded.refusal("the collection's embedding function reembed")
        return recorded.model

    def __call__(self, input: Documents) -> Embeddings:
        return list(kept.embed(self.model, list(input), query=False))

    def embed_query(self, input: Documents) -> Embeddings:
        return list(kept.embed(self.model, list(input), query=True))

    @staticmethod
    def name() -> str:
        return NAME

    def default_space(self) -> Space:
        return "cosine"

    def supported_spaces(self) -> list[Space]:
        return ["cosine", "l2", "ip"]

    def get_config(self) -> dict[str, Any]:
        return deepcopy(self._config)

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> ReembedEmbeddingFunction:
        made = ReembedEmbeddingFunction.__new__(ReembedEmbeddingFunction)
        made._model, made._config = None, deepcopy(dict(config))
        return made


def open_recorded(
    said: Mapping[str, Any] | None, words: Iterable[Model | None], where: str
) -> EmbeddingFunction[Any] | None:
    """A recorded model as a function that is ready to embed; None where none is recorded.

    Args:
        said: manifest keys, as `model_of` and a pointer give them.
        words: models that the application names.

    Raises:
        PreflightError: a store's word is not enough for it, it is not registered in this process,
            or it cannot be built here.
    """
    if said is not None and said.get("provider") == "chroma":
        _require_registered(str(said.get("name")))
    recorded = believe(said, words)
    if recorded is None:
        return None
    if recorded.model is None:
        raise recorded.refusal(where)
    if recorded.model.provider != "chroma":
        return ReembedEmbeddingFunction(recorded.model)
    return _built(recorded.model)


def _require_registered(name: str) -> None:
    if name not in known_embedding_functions:
        raise PreflightError(
            f"the collection's embedding function {name!r} is not registered in this process",
            "Import the module that registers it before the first query.",
        )


def _built(model: Model) -> EmbeddingFunction[Any]:
    """One of Chroma's registered functions."""
    try:
        built: EmbeddingFunction[Any] = known_embedding_functions[model.name].build_from_config(
            dict(model.options)
        )
    except (TypeError, ValueError, AssertionError, ImportError) as error:
        raise PreflightError(
            f"the collection's embedding function {model.name!r} cannot be built here: {error}",
            "Set the environment variable or install the package that it names.",
        ) from error
    return built
