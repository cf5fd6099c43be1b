"""How Chroma is made to record an embedding function with a new collection (`keeping.py`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from chromadb.api.types import EmbeddingFunction, Embeddings
from chromadb.utils.embedding_functions import known_embedding_functions

from reembed.manifest import Model
from reembed.stores.chroma.function import ReembedEmbeddingFunction
from reembed.stores.chroma.function_settings import NAME
from reembed.stores.chroma.keeping import function_for


def to_record(model: Model) -> EmbeddingFunction[Any]:
    """An object that makes `create_collection` record the function for `model`.

    It is never called. A built-in function is not constructed, because OpenAI's wants its key at
    construction; `recording` keeps the registry as it was.
    """
    name, config = function_for(model)
    if name == NAME:
        return ReembedEmbeddingFunction(model)
    return _Record.of(name, config)


class _Record(EmbeddingFunction[Any]):
    """Stands for a registered embedding function while a collection is created."""

    config: dict[str, Any]

    def __init__(self) -> None:
        pass

    @staticmethod
    def of(name: str, config: dict[str, Any]) -> _Record:
        kind = type("_Record", (_Record,), {"name": staticmethod(lambda: name), "config": config})
        record: _Record = kind()
        return record

    def __call__(self, input: Any) -> Embeddings:
        raise AssertionError("a record of an embedding function embeds nothing")

    @classmethod
    def build_from_config(cls, config: dict[str, Any]) -> _Record:
        return cls()

    def get_config(self) -> dict[str, Any]:
        return dict(self.config)


@contextmanager
def recording() -> Iterator[None]:
    """Keep Chroma's registry as it was: creating a collection registers the class of the function
    it is given, which would put a `_Record` in the place of the real one."""
    before = dict(known_embedding_functions)
    try:
        yield
    finally:
        for name in set(known_embedding_functions) - set(before):
            del known_embedding_functions[name]
        known_embedding_functions.update(before)
