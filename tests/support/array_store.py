"""A store in memory, over arrays: it injects faults that no real store would make on demand."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from reembed.errors import CollectionNotFoundError
from reembed.quality.search import Block, exact_search
from reembed.records import (
    EXPORT_SCHEMA,
    SHARD_ROWS,
    Metric,
    Vectors,
    chunked,
    row_hash,
)
from reembed.stores.store import Store
from reembed.stores.values import (
    Capabilities,
    CollectionInfo,
    CollectionSpec,
    SpecCheck,
    Where,
    WriteMode,
)

Vector = np.ndarray[tuple[int], np.dtype[np.float32]]


@dataclass(frozen=True)
class Row:
    """One record; its hash is computed once."""

    document: str | None
    metadata: str
    uri: str | None
    vector: Vector | None
    sha256: bytes

    @classmethod
    def make(
        cls, id: str, document: str | None, metadata: str, uri: str | None, vector: Vector | None
    ) -> Row:
        return cls(document, metadata, uri, vector, row_hash(id, document, metadata, uri))


@dataclass
class Collection:
    """Records by id, and how its search goes wrong.

    Attributes:
        ranks_by: the metric its search uses; the metric it was made with.
        blind: ids that its search never finds.
        miss: chance that one of the nearest is passed over.
    """

    info: CollectionInfo
    rows: dict[str, Row] = field(default_factory=dict)
    ranks_by: Metric | None = None
    blind: frozenset[str] = frozenset()
    miss: float = 0.0
    _searchable: tuple[object, Block] | None = None

    def clone(self) -> Collection:
        return replace(self, rows=dict(self.rows))

    def searchable(self, d: int) -> Block:
        """The records that a search can find, kept until they change."""
        version = (d, self.blind, hash(tuple(map(id, self.rows.values()))))
        if self._searchable is None or self._searchable[0] != version:
            usable = {
                one: row.vector for one, row in self.rows.items()
                if one not in self.blind and row.vector is not None
                and len(row.vector) == d and np.isfinite(row.vector).all() and row.vector.any()
            }  # fmt: skip
            ids = list(usable)
            vectors = np.stack(list(usable.values()))
            self._searchable = (version, Block(ids, [b""] * len(ids), vectors))
        return self._searchable[1]


class Arrays:
    """See the module: every part of a store in one, but for what a swap needs."""

    def __init__(self) -> None:
        self.held: dict[str, Collection] = {}
        self._claims: dict[str, str] = {}
        self._claiming = threading.Lock()

    def store(self) -> Store:
        return Store("chroma:in-memory", self, self, search=self, writer=self, claims=self)

    def clone(self) -> Arrays:
        """A copy whose records can be changed without changing these."""
        copy = Arrays()
        copy.held = {id: collection.clone() for id, collection in self.held.items()}
        return copy

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities()

    def collections(self) -> list[str]:
        return sorted(self.held)

    def find(self, name: str) -> CollectionInfo | None:
        return self.describe_id(name)

    def describe(self, name: str) -> CollectionInfo:
        info = self.describe_id(name)
        if info is None:
            raise CollectionNotFoundError(f"there is no collection {name!r}")
        return info

    def describe_id(self, id: str) -> CollectionInfo | None:
        held = self.held.get(id)
        return replace(held.info, count=len(held.rows)) if held else None

    def default_target(self, collection: str, model: str, dimensions: int) -> str:
        return f"{collection}__{model}-{dimensions}"

    def check(self, spec: CollectionSpec) -> SpecCheck:
        return SpecCheck()

    def check_where(self, where: Where) -> None: ...

    def list_ids(self, id: str, where: Where = None) -> Iterator[pa.Array]:
        for page in chunked(list(self.held[id].rows), SHARD_ROWS):
            yield pa.array(page, pa.string())

    def fetch(
        self,
        id: str,
        ids: Sequence[str],
        *,
        vectors: bool,
        where: Where = None,
    ) -> pa.RecordBatch:
        held = self.held[id].rows
        found = [(one, held[one]) for one in ids if one in held]
        given = [row.vector if vectors else None for _, row in found]
        offsets = np.cumsum([0, *(0 if v is None else len(v) for v in given)], dtype=np.int32)
        present = [v for v in given if v is not None]
        values = np.concatenate(present) if present else np.zeros(0, np.float32)
        embeddings = pa.ListArray.from_arrays(
            pa.array(offsets), pa.array(values, pa.float32()),
            mask=pa.array([v is None for v in given], pa.bool_()),
        )  # fmt: skip
        return pa.record_batch(
            [
                pa.array([one for one, _ in found], pa.string()),
                pa.array([row.document for _, row in found], pa.large_string()),
                pa.array([row.metadata for _, row in found], pa.large_string()),
                pa.array([row.uri for _, row in found], pa.string()),
                embeddings,
                pa.array([row.sha256 for _, row in found], pa.binary(32)),
            ],
            schema=EXPORT_SCHEMA,
        )

    def count(self, id: str) -> int:
        return len(self.held[id].rows)

    def create(self, spec: CollectionSpec) -> CollectionInfo:
        name, index = spec.name, dict(spec.index)
        info = CollectionInfo(name, name, 0, spec.dimensions, spec.metric, None, index, None)
        self.held[name] = Collection(info)
        return info

    def write(self, id: str, records: pa.RecordBatch, vectors: Vectors, mode: WriteMode) -> None:
        if mode == "replace":
            self.delete(id, records.column("id").to_pylist())
        rows = self.held[id].rows
        for record, vector in zip(records.to_pylist(), vectors, strict=True):
            if record["id"] not in rows:
                rows[record["id"]] = Row(
                    record["document"], record["metadata"], record["uri"], vector.copy(),
                    record["row_sha256"],
                )  # fmt: skip

    def set_vectors(self, id: str, ids: Sequence[str], vectors: Vectors) -> None:
        rows = self.held[id].rows
        for one, vector in zip(ids, vectors, strict=True):
            if one in rows:
                rows[one] = replace(rows[one], vector=vector.copy())

    def delete(self, id: str, ids: Sequence[str]) -> None:
        for one in ids:
            self.held[id].rows.pop(one, None)

    def leaves_index_out(self, id: str, vectors: Vectors, k: int) -> bool:
        return False

    def query(self, id: str, vectors: Vectors, k: int, *, freely: bool = False) -> list[list[str]]:
        held = self.held[id]
        block = held.searchable(vectors.shape[1])
        asked = k * 3 if held.miss else k
        hits = exact_search(vectors, [block], asked, held.ranks_by or held.info.metric)
        ranked = hits.ranked_ids()
        if held.miss:
            chance = np.random.default_rng(k)
            ranked = [[one for one in row if chance.random() >= held.miss] for row in ranked]
        return [row[:k] for row in ranked]

    def claim(self, live: str, claim: str, over: str | None = None) -> str | None:
        with self._claiming:
            standing = self._claims.get(live)
            if standing in (None, over, claim):
                self._claims[live] = claim
                return None
            return standing

    def renew(self, live: str, claim: str, renewed: str) -> str | None:
        with self._claiming:
            standing = self._claims.get(live, "")
            if standing not in (claim, renewed):
                return standing
            self._claims[live] = renewed
            return None

    def unclaim(self, live: str, claim: str) -> None:
        with self._claiming:
            if self._claims.get(live) == claim:
                del self._claims[live]

    def drop(self, id: str) -> None:
        self.held.pop(id, None)


def arrays_of(store: Store) -> Arrays:
    """What is behind such a store."""
    assert isinstance(store.catalog, Arrays)
    return store.catalog
