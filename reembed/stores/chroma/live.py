"""What an application imports to read a live name: always the right collection and query model.

    from reembed import live
    docs = live.open("chroma:./chroma_db", "docs")
    docs.query(query_texts=["how to parse dates"], n_results=5)

Every call looks the live name up again (the pointer `<name>__pointer` if there is one, else the
plain name), so a swap of any kind is seen by the next call, and texts are embedded with the model
that fits the collection found. A read that a swap overtakes answers from the collection that was
live when it began, whole and with that one's model. What a store says of a model is data: one that
calls code, reads files, or sends texts and keys elsewhere than its provider does takes the
application's word, by `model=` or `trust`. Importing this module registers the embedding function
`reembed`, with which a plain Chroma client can open collections that reembed made.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, TypeVar, cast

from chromadb.api import ClientAPI
from chromadb.api.models.Collection import Collection
from chromadb.api.types import EmbeddingFunction, GetResult, QueryResult
from chromadb.errors import NotFoundError

from reembed.errors import CollectionNotFoundError, PreflightError, SourceChangedError
from reembed.manifest import Model
from reembed.records import Vectors
from reembed.stores.chroma import client as chroma_client
from reembed.stores.chroma import hold as chroma_hold
from reembed.stores.chroma import metric as chroma_metric
from reembed.stores.chroma import names as chroma_names
from reembed.stores.chroma import pointer as chroma_pointer
from reembed.stores.chroma.function import ReembedEmbeddingFunction, open_recorded
from reembed.stores.chroma.keeping import without_note
from reembed.stores.chroma.recorded import disarm, model_of
from reembed.stores.live import Leads, Live, Own

__all__ = ["LiveCollection", "open"]

PATIENCE_SECONDS = 5.0
"""How long a live name may be missing before it is an error; a rename's gap takes milliseconds."""
_PAUSE_SECONDS = 0.002
_SWAPS_PER_CALL = 20

Result = TypeVar("Result")


def open(
    url: str, name: str, *, model: Model | None = None, embeds_with: Own | None = None
) -> LiveCollection:
    """Open the live name `name` of the Chroma store at `url`. See `reembed.live.open`."""
    client = chroma_client.connect(chroma_client.parse(url), url)
    opened = LiveCollection(
        client, name, model=model, embeds_with=embeds_with, owns_client=True
    )  # fmt: skip
    if embeds_with is not None:
        try:
            opened.check()
        except BaseException:
            opened.close()
            raise
    return opened


class LiveCollection(Live):
    """A Chroma collection by its live name. Calls take what `chromadb.Collection`'s take.

    Errors of Chroma itself (a bad filter, a wrong dimension) come through unchanged; a live name
    that leads nowhere is CollectionNotFoundError, one that leads to a deleted collection
    SourceChangedError. A write that another process's swap overtakes lands in the collection that
    was live when it began; the sweep after a swap carries it over. While the name moves, writes
    wait a few seconds (see `stores.chroma_hold`), so that none of them is overtaken.
    """

    def __init__(
        self,
        client: ClientAPI,
        name: str,
        *,
        model: Model | None = None,
        embeds_with: Own | None = None,
        owns_client: bool = False,
    ) -> None:
        super().__init__(name, model, embeds_with)
        self._client = client
        self._owns_client = owns_client
        self._functions: dict[str, EmbeddingFunction[Any]] = {}

    @classmethod
    def from_client(
        cls,
        client: ClientAPI,
        name: str,
        *,
        model: Model | None = None,
        embeds_with: Own | None = None,
    ) -> Self:
        """The live name `name` through a client that the application opened and closes itself."""
        return cls(client, name, model=model, embeds_with=embeds_with)

    # --- which collection ------------------------------------------------------------------------

    @property
    def collection(self) -> Collection:
        """The collection that the name leads to now. Held, it goes stale with the next swap."""
        return self._harmless(self._resolve()[0])

    def _harmless(self, collection: Collection, writes: bool = False) -> Collection:
        """The handle without functions that nobody's word but the store's stands for.

        Raises:
            PreflightError: one of them would have to embed what is written.
        """
        sparse = disarm(collection, [self._model])
        if writes and sparse is not None:
            raise sparse.refusal(f"{self.name}: a sparse vector is made of what is written")
        return collection

    def _resolve(self) -> tuple[Collection, dict[str, Any] | None]:
        """The collection now, and the model that its pointer names (None for a plain name)."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                pointer = chroma_pointer.read(self._client, self.name)
                if pointer is not None:
                    target = chroma_pointer.follow(self._client, pointer)
                    return target, chroma_pointer.model_of(pointer)
                plain = chroma_names.by_name(self._client, self.name)
                if plain is not None:
                    return plain, None
                problem: CollectionNotFoundError | SourceChangedError = CollectionNotFoundError(
                    f"there is no collection {self.name!r}, and no pointer of that name",
                    "Check the name; `reembed init URL` lists the collections.",
                )
            except SourceChangedError as error:  # the pointer may be about to be flipped
                problem = error
            if time.monotonic() > deadline:
                raise problem
            time.sleep(_PAUSE_SECONDS)

    def _call(
        self, work: Callable[[Collection], Result], writes: bool = False, own: bool = False
    ) -> Result:
        """`work` on the collection of this moment, again if it was deleted in between.

        Args:
            own: whether it uses vectors that the application has made.
        """
        for attempt in range(_SWAPS_PER_CALL):
            collection, model = self._resolve()
            if own and self._own is not None:
                self.check_own(self._leads_of(collection, model))
            collection = self._harmless(collection, writes)
            try:
                return work(collection)
            except NotFoundError:
                if attempt == _SWAPS_PER_CALL - 1:
                    raise
        raise AssertionError("unreachable")

    def _call_with_vectors(
        self, texts: list[str], query: bool, work: Callable[[Collection, Vectors], Result]
    ) -> Result:
        """Embed `texts` for the collection of this moment, then do `work` on it; from the start if
        a swap came between, because the vectors would be another model's."""
        for _ in range(_SWAPS_PER_CALL):
            collection, model = self._resolve()
            vectors = self._remembered(collection, model, texts, query)
            if not query:
                chroma_hold.wait(self._client, self.name)
            now, _ = self._resolve()
            if now.id != collection.id:
                continue
            try:
                return work(self._harmless(now, not query), vectors)
            except NotFoundError:  # dropped between the look-up and the call
                continue
        raise SourceChangedError(f"{self.name} moved {_SWAPS_PER_CALL} times during one call")

    # --- which model -----------------------------------------------------------------------------

    def leads(self) -> Leads:
        return self._leads_of(*self._resolve())

    def _leads_of(self, collection: Collection, model: dict[str, Any] | None) -> Leads:
        moved = None
        if model is None:
            function = chroma_metric.recorded_function(collection)
            model = model_of(function) if function is not None else None
        else:
            pointer = chroma_pointer.read(self._client, self.name)
            moved = (pointer.metadata or {}).get("moved") if pointer is not None else None
        return Leads(
            str(collection.id), model, collection.get_model().dimension,
            moved if isinstance(moved, str) else None, chroma_metric.recorded(collection, {})[0],
        )  # fmt: skip

    def vectors(self, texts: Sequence[str], *, query: bool) -> Vectors:
        return self._remembered(*self._resolve(), texts, query)

    def _remembered(
        self, collection: Collection, model: Mapping[str, Any] | None, texts: Sequence[str],
        query: bool,
    ) -> Vectors:  # fmt: skip
        return self._recalled(
            f"{collection.id} {json.dumps(model, sort_keys=True, default=str)}", texts, query,
            lambda missing: self._embed(collection, model, missing, query),
        )  # fmt: skip

    def _embed(
        self, collection: Collection, model: Mapping[str, Any] | None, texts: list[str], query: bool
    ) -> Any:
        function = self._function(collection, model)
        return function.embed_query(texts) if query else function(texts)

    def _function(
        self, collection: Collection, model: Mapping[str, Any] | None
    ) -> EmbeddingFunction[Any]:
        """The pointer's model, else the collection's own, else the one given to `open`.

        Raises:
            PreflightError: there is none, or a store's word is not enough for it.
        """
        if model is None:
            function = chroma_metric.recorded_function(collection)
            if function is not None:
                model = model_of(function) or {"provider": function.get("name")}
            elif self._model is None:
                raise PreflightError(
                    f"{self.name}: neither a pointer nor the collection says which model embeds "
                    "its texts",
                    "Pass query_embeddings, or model= to reembed.live.open.",
                )
        key = json.dumps(model, sort_keys=True, default=str)
        if key not in self._functions:
            opened = open_recorded(model, [self._model], self.name)
            self._functions[key] = opened or ReembedEmbeddingFunction(cast(Model, self._model))
        return self._functions[key]

    # --- reading ---------------------------------------------------------------------------------

    def query(
        self,
        query_embeddings: Any = None,
        query_texts: str | list[str] | None = None,
        **arguments: Any,
    ) -> QueryResult:
        """As `Collection.query`; `query_texts` are embedded with the model that fits."""
        if query_texts is None:
            return self._call(
                lambda c: c.query(query_embeddings=query_embeddings, **arguments), own=True
            )
        if query_embeddings is not None:
            raise ValueError("query takes query_texts or query_embeddings, not both")
        return self._call_with_vectors(
            _listed(query_texts),
            True,
            lambda c, vectors: c.query(query_embeddings=cast(Any, vectors), **arguments),
        )

    def get(self, *args: Any, **arguments: Any) -> GetResult:
        """As `Collection.get`."""
        return self._call(lambda c: c.get(*args, **arguments))

    def peek(self, limit: int = 10) -> GetResult:
        """As `Collection.peek`."""
        return self._call(lambda c: c.peek(limit))

    def count(self) -> int:
        """Number of records."""
        return self._call(lambda c: c.count())

    @property
    def metadata(self) -> dict[str, Any] | None:
        """The collection's own metadata."""
        return without_note(self._call(lambda c: c.metadata))

    # --- writing ---------------------------------------------------------------------------------

    def add(self, ids: Any, **arguments: Any) -> None:
        """As `Collection.add`; documents without embeddings are embedded with the model that
        fits, or `texts` in their place."""
        self._write("add", ids, arguments)

    def upsert(self, ids: Any, **arguments: Any) -> None:
        """As `Collection.upsert`; documents as in `add`."""
        self._write("upsert", ids, arguments)

    def update(self, ids: Any, **arguments: Any) -> None:
        """As `Collection.update`; documents as in `add`."""
        self._write("update", ids, arguments)

    def delete(self, *args: Any, **arguments: Any) -> None:
        """As `Collection.delete`."""
        chroma_hold.wait(self._client, self.name)
        self._call(lambda c: c.delete(*args, **arguments))

    def _write(self, verb: str, ids: Any, arguments: dict[str, Any]) -> None:
        documents = arguments.pop("texts", None) or arguments.get("documents")
        if documents is None or arguments.get("embeddings") is not None:
            chroma_hold.wait(self._client, self.name)
            own = arguments.get("embeddings") is not None
            self._call(lambda c: getattr(c, verb)(ids=ids, **arguments), writes=True, own=own)
            return
        rest = {key: value for key, value in arguments.items() if key != "embeddings"}
        self._call_with_vectors(
            _listed(documents),
            False,
            lambda c, vectors: getattr(c, verb)(ids=ids, embeddings=vectors, **rest),
        )

    # --- closing ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the client, if `open` opened it."""
        if self._owns_client:
            chroma_client.close(self._client)


def _listed(texts: str | list[str]) -> list[str]:
    return [texts] if isinstance(texts, str) else list(texts)
