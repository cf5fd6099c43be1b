"""What every store adapter offers: the Store protocol and the values it speaks in.

An adapter maps its client's errors to `reembed.errors`: a store out of reach is UnreachableError,
an unknown name CollectionNotFoundError, a request it will never take PreflightError. A contract
suite (`tests/contract`) holds every adapter to the sentences below.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from reembed.manifest import Layout, Model, SwapKind
from reembed.records import Metric, Vectors


@dataclass(frozen=True)
class CollectionInfo:
    """A collection as the store describes it at one moment.

    Attributes:
        id: the store's own object id, stable under renames.
        count: records, all of them.
        dimensions: of its vectors, None where it never had one.
        metric: the metric its index really uses.
        metadata: the collection's own metadata, None without any.
        index: store-specific index settings, as `create` takes them.
        model: what the store recorded of the model, as manifest keys; None if nothing usable.
        database: which database it is in, whatever name and address that goes by; empty where the
            store cannot tell.
        layout: pgvector: how the table is laid out; empty where a store has one layout.
    """

    id: str
    name: str
    count: int
    dimensions: int | None
    metric: Metric
    metadata: dict[str, Any] | None = None
    index: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] | None = None
    database: dict[str, Any] = field(default_factory=dict)
    layout: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class StoreOptions:
    """What a manifest says of its source besides the URL.

    Attributes:
        data_dir: Chroma over HTTP: the server's own directory, if this machine can reach it.
        layout: pgvector: how the table is laid out.
        columns: pgvector: names of columns, by what they hold.
    """

    data_dir: Path | None = None
    layout: Layout = "auto"
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Survey:
    """What `plan` should tell about a collection that is to be moved.

    Attributes:
        notes: how it is laid out, and what its swap will do to what hangs on it.
        blockers: why it cannot be swapped.
    """

    notes: tuple[str, ...] = ()
    blockers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Capabilities:
    """What a store can do here, with this URL and this machine's reach.

    Attributes:
        swap_kinds: the kinds it can do, and what each guarantees, in its own words.
        local_path: the directory whose disk the shadow fills, None if it is not on this machine.
        notes: what `plan` should tell the user about this store.
        open_in: other processes that have a store open that takes one writer, e.g.
            `pid 123 (python app.py)`; those that can be seen.
    """

    swap_kinds: Mapping[SwapKind, str]
    local_path: Path | None = None
    notes: tuple[str, ...] = ()
    open_in: tuple[str, ...] = ()


@dataclass(frozen=True)
class Exchange:
    """One move of the live name from a collection to another.

    Attributes:
        live: the name the application reads.
        incoming_id: the collection that takes the live name.
        outgoing_id: the collection that has it now; None where the live name is new.
        parked: the name that the outgoing collection gets.
        model: settings of the incoming collection's model (manifest keys), for a pointer's readers.
    """

    live: str
    incoming_id: str
    outgoing_id: str | None
    parked: str
    model: dict[str, Any] | None = None


@dataclass(frozen=True)
class Receipt:
    """What an exchange did.

    Attributes:
        kind: the swap kind used.
        gap_seconds: how long the live name did not exist, measured; None where there is no gap.
        intruder: name of a collection that somebody made under the live name in the gap, moved
            aside so that its records can be merged; None without one.
        mark: for `changed_since`, where the store logs writes to the incoming collection from the
            very moment of the move; None where it does not.
    """

    kind: SwapKind
    gap_seconds: float | None = None
    intruder: str | None = None
    mark: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Store(Protocol):
    """A vector database behind one URL."""

    url: str

    @property
    def capabilities(self) -> Capabilities: ...

    def collections(self) -> list[str]:
        """Names of all collections, sorted."""
        ...

    def describe(self, name: str) -> CollectionInfo:
        """The collection of this name. Raises CollectionNotFoundError, naming those that exist."""
        ...

    def describe_id(self, id: str) -> CollectionInfo | None:
        """The collection of this object id, None if it is gone."""
        ...

    def survey(self, id: str) -> Survey:
        """What is to be said of a collection before it is moved."""
        ...

    def check_name(self, name: str, beside: str | None = None) -> None:
        """Raise PreflightError, saying why, if the store would refuse the name.

        Args:
            beside: object id of the collection with which this one is to exchange names.
        """
        ...

    def fit_name(self, name: str) -> str:
        """A name that was made up, shortened where the store allows no such long ones."""
        ...

    def check_index(self, index: Mapping[str, Any], metric: Metric) -> None:
        """Raise PreflightError, saying why, if `create` would refuse these index settings."""
        ...

    def check_shadow(
        self, like: str | None, dimensions: int, index: Mapping[str, Any]
    ) -> list[str]:
        """What `plan` should say of a collection that is made like another one of this store, with
        vectors of so many dimensions. Raises PreflightError, saying why, if `create` would refuse.
        """
        ...

    def default_target(self, collection: str, model: str, dimensions: int) -> str:
        """A legal name `<collection>__<model>-<dimensions>`."""
        ...

    def check_where(self, where: Mapping[str, Any] | str | None) -> None:
        """Raise PreflightError if the filter is not one of this store's."""
        ...

    def list_ids(self, id: str, where: Mapping[str, Any] | str | None = None) -> Iterator[pa.Array]:
        """The ids of all (matching) records, each exactly once, in pages of at most SHARD_ROWS.

        Records written or deleted meanwhile may or may not appear; all others do.
        """
        ...

    def fetch(
        self,
        id: str,
        ids: Sequence[str],
        *,
        vectors: bool,
        where: Mapping[str, Any] | str | None = None,
    ) -> pa.RecordBatch:
        """The records of these ids (at most SHARD_ROWS) as `EXPORT_SCHEMA`, in the order asked for.

        Ids that do not exist, or no longer match `where`, are left out. A record whose vector the
        store has lost comes with a null embedding. Without `vectors` all embeddings are null.
        """
        ...

    def count(self, id: str) -> int:
        """Number of records."""
        ...

    def create(
        self,
        name: str,
        *,
        dimensions: int,
        metric: Metric,
        index: Mapping[str, Any],
        metadata: Mapping[str, Any] | None,
        model: Model,
        like: str | None = None,
    ) -> CollectionInfo:
        """A new, empty collection that embeds query texts with `model` where the store can.

        Args:
            like: object id of a collection of this store whose shape (columns, constraints) it has.

        Raises PreflightError if the name is taken or illegal or a setting is unknown.
        """
        ...

    def build_index(self, id: str) -> None:
        """Make the indexes that are better made when the records are there. Idempotent.

        Raises:
            TakenError: records hold the same values, which an index must have unique.
        """
        ...

    def add(self, id: str, records: pa.RecordBatch, vectors: Vectors) -> None:
        """Write records with vectors `(n, d) float32`, in batches the store can take.

        Idempotent for records that are already there with the same content; it never changes one
        that is there (use `replace`).

        Args:
            records: `EXPORT_SCHEMA`, of which the old vectors may be missing.

        Raises:
            TakenError: as `replace`.
        """
        ...

    def replace(self, id: str, records: pa.RecordBatch, vectors: Vectors) -> None:
        """Write records so that nothing of an older version remains (no metadata merge).

        Raises:
            TakenError: other records hold values that must be unique. Nothing was written.
        """
        ...

    def delete(self, id: str, ids: Sequence[str]) -> None:
        """Delete records; ids that do not exist are fine."""
        ...

    def query(self, id: str, vectors: Vectors, k: int) -> list[list[str]]:
        """The store's own search: for each of `(q, d) float32` the ids of its k nearest, nearest
        first."""
        ...

    def snapshot(self) -> contextlib.AbstractContextManager[None]:
        """What is listed and fetched in the block is as of one moment, where the store can."""
        ...

    def capture(self, id: str) -> None:
        """Log writes to the collection from now on, where the store can be told to. Idempotent."""
        ...

    def release_capture(self, id: str) -> None:
        """Remove every trace of `capture`, and of a move that was given up. Idempotent."""
        ...

    def watermark(self, id: str) -> str | None:
        """A mark of this moment for `changed_since`; None where the store can give none."""
        ...

    def changed_since(self, id: str, mark: str) -> list[str] | None:
        """Ids that may have been written or deleted since `watermark` gave the mark, and all that
        were; None where the store cannot tell, so that every record must be compared."""
        ...

    def acknowledge(self, id: str) -> None:
        """What `changed_since` last told of this collection has been carried, and need not be told
        again."""
        ...

    def is_pointer(self, live: str) -> bool:
        """Whether this live name is a pointer that `reembed.live` follows."""
        ...

    def resolve(self, live: str) -> CollectionInfo:
        """The collection that the live name leads to now, through its pointer if it is one."""
        ...

    def exchange(self, kind: SwapKind, exchange: Exchange) -> Receipt:
        """Move the live name. Convergent: called again after a crash it does what is left to do.

        Raises SourceChangedError if a collection is gone or the live name leads somewhere else.
        """
        ...

    def hold_writes(self, live: str, seconds: float, incoming: str) -> float | None:
        """Let writers to the live name wait, for at most so long; called again, from now on. With a
        pointer those are held that open it through `reembed.live`.

        Args:
            incoming: object id of the collection that is about to take the name.

        Returns:
            seconds in which a writer that came before the hold finishes its call; None where
            writers cannot be held.
        """
        ...

    def release_writes(self, live: str) -> None:
        """Let held writers go on. Fine if none are held."""
        ...

    def claim(self, live: str, claim: str, over: str | None = None) -> str | None:
        """Claim a live name: compare-and-set, also among processes on several machines.

        A claim is a text that the store keeps beside the name, and does not understand. There need
        be no collection of the name, and `collections` lists no claims.

        Args:
            over: take the name over from exactly this claim; None only takes it if nobody has it.

        Returns None if `claim` stands now, else the claim that stands and was left as it is.

        Raises:
            PreflightError: the store refuses to keep a claim: no right to write, or what it would
                be kept in is somebody else's.
        """
        ...

    def renew(self, live: str, claim: str, renewed: str) -> str | None:
        """Set `renewed` in place of exactly `claim`, of which it is impossible that another process
        is told at the same time that it has taken it over.

        Returns None if `renewed` stands now, else the claim that stands, empty if there is none.
        """
        ...

    def unclaim(self, live: str, claim: str) -> None:
        """Free the live name of exactly this claim; if another stands, or none, that is fine."""
        ...

    def drop(self, id: str) -> None:
        """Delete the collection of this object id, never one of the same name. Gone is fine."""
        ...

    def close(self) -> None: ...


class SimpleStore:
    """What a store does that logs no writes, reads no snapshots and indexes as it is filled."""

    def survey(self, id: str) -> Survey:
        return Survey()

    def fit_name(self, name: str) -> str:
        return name

    def check_shadow(
        self, like: str | None, dimensions: int, index: Mapping[str, Any]
    ) -> list[str]:
        return []

    def build_index(self, id: str) -> None:
        return None

    def snapshot(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def capture(self, id: str) -> None:
        return None

    def release_capture(self, id: str) -> None:
        return None

    def watermark(self, id: str) -> str | None:
        return None

    def changed_since(self, id: str, mark: str) -> list[str] | None:
        """By watermark alone: nothing changed, or anything."""
        return [] if self.watermark(id) == mark else None

    def acknowledge(self, id: str) -> None:
        return None
