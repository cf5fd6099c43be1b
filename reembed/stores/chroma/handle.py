"""A collection's handle on Chroma's own library (`library.py`); calls go by its object id."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar
from uuid import UUID

import numpy as np

_RESERVED = ("chroma:", "#")
_SPACE = "hnsw:space"
Result = TypeVar("Result")


class Client(Protocol):
    """What a handle asks of its client; see `library.LocalClient`."""

    @property
    def place(self) -> tuple[str, str]: ...

    def whole(self) -> Any: ...

    def ask(
        self, library: Callable[[Any], Result], package: Callable[[], Result], *, plain: bool = True
    ) -> Result: ...


class Model:
    """What is known of a collection, as the package's model has it."""

    def __init__(self, found: Any) -> None:
        self.id: UUID = found.id
        self.name: str = found.name
        self.metadata: dict[str, Any] | None = found.metadata
        self.configuration_json: dict[str, Any] = found.configuration
        self.serialized_schema: dict[str, Any] | None = found.schema
        self.dimension: int | None = found.dimension

    def __setitem__(self, key: str, value: Any) -> None:
        setattr(self, key, value)


class LocalCollection:
    """As the package's `Collection`. What the library is not to be asked goes to that one."""

    def __init__(self, client: Client, found: Any) -> None:
        self._client, self._model = client, Model(found)
        self._whole: Any = None

    @property
    def id(self) -> UUID:
        return self._model.id

    @property
    def name(self) -> str:
        return self._model.name

    @property
    def metadata(self) -> dict[str, Any] | None:
        return self._model.metadata

    def get_model(self) -> Model:
        return self._model

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.whole(), name)

    def whole(self) -> Any:
        """The package's handle, with what was changed in this one."""
        if self._whole is None:
            client = self._client.whole()
            self._whole = client.get_collection_by_id(self.id, embedding_function=None)
            model = self._whole.get_model()
            model["serialized_schema"] = self._model.serialized_schema
            model["configuration_json"] = self._model.configuration_json
        return self._whole

    def count(self) -> int:
        return self._client.ask(
            lambda library: int(library.count(str(self.id), *self._client.place)),
            lambda: int(self.whole().count()),
        )

    def get(
        self, ids: Any = None, include: Any = ("metadatas", "documents"), **settings: Any
    ) -> dict[str, Any]:
        given = {key: value for key, value in settings.items() if value is not None}
        limit, offset = given.get("limit"), given.get("offset", 0)
        return self._client.ask(
            lambda library: _answer(
                library.get(
                    str(self.id), ids, None, limit, offset, None, include, *self._client.place
                ),
                include,
                np.array,
            ),
            lambda: dict(self.whole().get(ids=ids, include=include, **given)),
            plain=given.keys() <= {"limit", "offset"} and (ids is None or _are_distinct(ids)),
        )

    def query(
        self, query_embeddings: Any, n_results: int, include: Any, **settings: Any
    ) -> dict[str, Any]:
        return self._client.ask(
            lambda library: _answer(
                library.query(
                    str(self.id), None, list(query_embeddings), n_results, None, None, include,
                    *self._client.place,
                ),
                include,
                lambda found: [np.array(vectors) for vectors in found],
            ),
            lambda: dict(
                self.whole().query(
                    query_embeddings=query_embeddings, n_results=n_results, include=include,
                    **settings,
                )
            ),
            plain=not settings and n_results > 0 and _are_vectors(query_embeddings),
        )  # fmt: skip

    def add(self, *, ids: Any, embeddings: Any, metadatas: Any, documents: Any, uris: Any) -> None:
        self._client.ask(
            lambda library: library.add(
                ids, str(self.id), list(embeddings), metadatas, documents, uris,
                *self._client.place,
            ),
            lambda: self.whole().add(
                ids=ids, embeddings=embeddings, metadatas=metadatas, documents=documents, uris=uris
            ),
            plain=(
                all(one is None or is_plain(one) for one in metadatas)
                and all(one is None or type(one) is str for one in [*documents, *uris])
                and _are_distinct(ids)
                and _are_vectors(embeddings)
                and len(ids) == len(embeddings)
            ),
        )  # fmt: skip

    def delete(self, ids: list[str]) -> None:
        self._client.ask(
            lambda library: library.delete(
                str(self.id), ids, None, None, None, *self._client.place
            ),
            lambda: self.whole().delete(ids=ids),
            plain=_are_distinct(ids),
        )

    def modify(
        self, name: str | None = None, metadata: dict[str, Any] | None = None, **settings: Any
    ) -> None:
        self._client.ask(
            lambda library: library.update_collection(str(self.id), name, metadata, None),
            lambda: self.whole().modify(name=name, metadata=metadata, **settings),
            plain=not settings and (metadata is None or is_plain(metadata)),
        )
        self._model.name = name or self._model.name
        self._model.metadata = metadata or self._model.metadata


def _answer(found: Any, include: Sequence[str], vectors: Callable[[Any], Any]) -> dict[str, Any]:
    """What the package makes of the library's answer."""
    given = found.embeddings
    return {
        "ids": found.ids,
        "embeddings": vectors(given) if "embeddings" in include and given is not None else given,
        "documents": found.documents,
        "uris": found.uris if "uris" in include else None,
        "included": include,
        "data": None,
        "metadatas": found.metadatas,
    } | ({"distances": found.distances} if hasattr(found, "distances") else {})


def is_plain(metadata: Mapping[str, Any]) -> bool:
    """Whether the package would hand it on as it is."""
    return bool(metadata) and all(
        type(key) is str and key and not key.startswith(_RESERVED) and key != _SPACE
        and type(value) in (str, int, float, bool)
        for key, value in metadata.items()
    )  # fmt: skip


def _are_distinct(ids: Any) -> bool:
    """Whether they are ids that the package would hand on."""
    return (
        type(ids) is list and bool(ids) and all(type(id) is str and id for id in ids)
        and len(set(ids)) == len(ids)
    )  # fmt: skip


def _are_vectors(vectors: Any) -> bool:
    return (
        isinstance(vectors, np.ndarray) and vectors.ndim == 2 and vectors.dtype == np.float32
        and 0 not in vectors.shape
    )  # fmt: skip
