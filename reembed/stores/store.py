"""What a store is made of: parts, of which each has those it can have.

Every store can be looked into and read (`Catalog`, `Reader`); a Parquet folder, or a database in
which one may not write, is nothing else. What more a store can do is a part of its own, and None
where it cannot, so that no method does nothing. Whoever needs a part asks for it once, by
`Store.to_write()` and its like, which refuse with the store's URL and the way out.

An adapter maps its client's errors to `reembed.errors`: a store out of reach is UnreachableError,
an unknown name CollectionNotFoundError, a request it will never take PreflightError. A contract
suite (`tests/stores/contract`) holds every adapter to the sentences below, part by part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from reembed.errors import PreflightError
from reembed.manifest import SwapKind
from reembed.records import Vectors
from reembed.stores.filling import Bulk
from reembed.stores.values import (
    Capabilities,
    Change,
    CollectionInfo,
    CollectionSpec,
    Exchange,
    Leftover,
    Orphans,
    Prepared,
    Receipt,
    SpecCheck,
    Survey,
    Where,
    WriteMode,
)


class Catalog(Protocol):
    """Which collections there are."""

    @property
    def capabilities(self) -> Capabilities: ...

    def collections(self) -> list[str]:
        """Names of all collections, sorted."""

    def find(self, name: str) -> CollectionInfo | None:
        """The collection of this name, None without one."""

    def describe(self, name: str) -> CollectionInfo:
        """The collection of this name. Raises CollectionNotFoundError, naming those that exist."""

    def describe_id(self, id: str) -> CollectionInfo | None:
        """The collection of this object id, None if it is gone."""


class Reader(Protocol):
    """Records out."""

    def check_where(self, where: Where) -> None:
        """Raise PreflightError if the filter is not one of this store's."""

    def list_ids(self, id: str, where: Where = None) -> Iterator[pa.Array]:
        """The ids of all (matching) records, each exactly once, in pages of at most SHARD_ROWS.

        Records written or deleted meanwhile may or may not appear; all others do.
        """

    def fetch(
        self, id: str, ids: Sequence[str], *, vectors: bool, where: Where = None
    ) -> pa.RecordBatch:
        """The records of these ids (at most SHARD_ROWS) as `EXPORT_SCHEMA`, in the order asked for.

        Ids that do not exist, or no longer match `where`, are left out. A record whose vector the
        store has lost comes with a null embedding. Without `vectors` all embeddings are null.
        """

    def count(self, id: str) -> int:
        """Number of records."""


class Search(Protocol):
    """The store's own search."""

    def query(self, id: str, vectors: Vectors, k: int, *, freely: bool = False) -> list[list[str]]:
        """For each of `(q, d) float32` the ids of its k nearest, nearest first: by the index, or
        `freely`, as an application is answered, for which a store may leave its index out."""

    def leaves_index_out(self, id: str, vectors: Vectors, k: int) -> bool:
        """Whether it has an index that it leaves out then."""


class Writer(Protocol):
    """Collections and records in."""

    def default_target(self, collection: str, model: str, dimensions: int) -> str:
        """A legal name `<collection>__<model>-<dimensions>`."""
        ...

    def check(self, spec: CollectionSpec) -> SpecCheck:
        """What is to be said of a collection before it is made, and all that `create` would refuse
        of its name, its index and its shape, but for a name that is taken."""
        ...

    def create(self, spec: CollectionSpec) -> CollectionInfo:
        """Make an empty one. Raises PreflightError where `check` refuses or the name is taken."""
        ...

    def write(self, id: str, records: pa.RecordBatch, vectors: Vectors, mode: WriteMode) -> None:
        """Write records with vectors `(n, d) float32`, in batches the store can take. Idempotent.

        Args:
            records: `EXPORT_SCHEMA`, of which the old vectors may be missing.
            mode: `add` never changes a record that is there. `replace` leaves nothing of an older
                version (no metadata merge).

        Raises:
            TakenError: other records hold values that must be unique. Nothing was written.
        """
        ...

    def set_vectors(self, id: str, ids: Sequence[str], vectors: Vectors) -> None:
        """Give records other vectors, in place; ids that do not exist are fine. Idempotent."""

    def delete(self, id: str, ids: Sequence[str]) -> None:
        """Delete records; ids that do not exist are fine."""

    def drop(self, id: str) -> None:
        """Delete the collection of this object id, never one of the same name. Gone is fine."""


class Changes(Protocol):
    """What was written since."""

    def since(self, id: str, mark: str | None, besides: object = None) -> Change:
        """Since an earlier call gave the mark (None: of this moment); not what `besides` told."""
        ...


class Capture(Protocol):
    """A log of writes, which `Changes` then tells of."""

    def start(self, id: str) -> None:
        """Log writes to the collection from now on, where that may be. Idempotent."""
        ...

    def stop(self, id: str) -> None:
        """Remove every trace of `start`, and of a move that was given up. Idempotent."""
        ...

    def acknowledge(self, token: object) -> None:
        """What `Changes.since` told with this token is carried, and need not be told again."""
        ...


class Cutover(Protocol):
    """The move of a live name, and writers that wait meanwhile."""

    @property
    def kinds(self) -> Mapping[SwapKind, str]:
        """The swap kinds it can do here, and what each guarantees, in its own words."""
        ...

    def follow(self, live: str) -> CollectionInfo | None:
        """The collection to which a pointer of this name leads, which `reembed.live` follows; None
        where the name is no pointer."""
        ...

    def fit_name(self, name: str) -> str:
        """A name that was made up, shortened where the store allows no such long ones."""
        ...

    def check(self, live: str, parked: str, outgoing_id: str) -> None:
        """Raise PreflightError, saying why, if the store would refuse one of the names of a move.

        Args:
            outgoing_id: the collection that has the live name, and would get the other.
        """
        ...

    def exchange(self, kind: SwapKind, exchange: Exchange) -> Receipt:
        """Move the live name. Convergent: called again after a crash it does what is left to do.

        Raises SourceChangedError if a collection is gone or the live name leads somewhere else.
        """
        ...

    def prepare(self, live: str, incoming: str) -> Prepared:
        """Do what would take long while writers wait, or what has come since; while they do wait,
        a part, after which they go on. Raises SourceChangedError if more comes than can be done."""
        ...

    def hold_writes(self, incoming: Mapping[str, str], seconds: float) -> float | None:
        """Let writers to live names wait, for at most so long; called again, from now on. With a
        pointer those are held that open it through `reembed.live`.

        Args:
            incoming: live name to object id of the collection that is about to take it. Names that
                move together are held together.

        Returns:
            seconds in which a writer that came before the hold finishes its call; None where
            writers cannot be held.
        """
        ...

    def release_writes(self, live: str) -> None:
        """Let held writers go on. Fine if none are held."""
        ...


class Claims(Protocol):
    """Claims on live names, for the lease."""

    def claim(self, live: str, claim: str, over: str | None = None) -> str | None:
        """Claim a live name: compare-and-set, also among processes on several machines.

        A claim is a text that the store keeps beside the name, and does not understand. There need
        be no collection of the name, and `Catalog.collections` lists no claims.

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


class Leftovers(Protocol):
    """What runs have left in a database, of which this one is a copy that no run knows of."""

    def find(self) -> list[Leftover]:
        """All of it, in the order in which it is removed."""
        ...

    def remove(self) -> list[Leftover]:
        """Remove it. Returns what was removed."""
        ...


class Shapes(Protocol):
    """What a collection is made like beyond a `CollectionSpec`: columns, constraints, indexes."""

    def define(self, id: str) -> dict[str, Any]:
        """The shape of a collection, as JSON has it."""

    def make(self, definition: dict[str, Any], name: str) -> str:
        """Make an empty collection of this shape. Returns its object id, for `CollectionSpec.like`
        and `Exchange.shape_id`. Raises PreflightError where the name is taken."""

    def missing(self, definition: dict[str, Any]) -> list[list[str]]:
        """What `make` leaves out, since this server lacks it: names, and what adds it."""


@dataclass(frozen=True)
class Store:
    """A vector database behind one URL, by its parts.

    Attributes:
        build_index: makes the indexes of a full collection. Idempotent. Raises TakenError where
            records hold the same values, which must be unique. None: it indexes as it is filled.
        bulk: fills a new collection faster; None: nothing is faster than `Writer.write`.
        snapshot: what is listed and fetched in the block is as of one moment.
        many: `Reader.fetch` without a filter, faster for pages of many records; None: it is fast.
        survey: what is to be said of a collection before it gets vectors of so many dimensions.
        orphans: what lies beside a collection's records and belongs to none, as far as it is seen.
        opening: what came of opening collections (by their names) as an application does, in a
            process of its own: name to each way to what went wrong. None: it is just there.
        together: does several moves at once, as `Cutover.exchange` does one: all of them or none.
        withdraw: removes what a move that is given up had prepared in collections, gone or not.
        row_hashes: `id` and `row_sha256` of all records, without reading them again.
        listed: a catalog that lists all once and opens no index to describe one; None: it is fast.
        rest: closes what is open for collections, and goes on. close: gives back all.
    """

    url: str
    catalog: Catalog
    reader: Reader
    search: Search | None = None
    writer: Writer | None = None
    build_index: Callable[[str], None] | None = None
    bulk: Bulk | None = None
    snapshot: Callable[[], AbstractContextManager[None]] | None = None
    many: Callable[..., pa.RecordBatch] | None = None
    survey: Callable[[str, int], Survey] | None = None
    orphans: Callable[[str], list[Orphans]] | None = None
    changes: Changes | None = None
    capture: Capture | None = None
    cutover: Cutover | None = None
    claims: Claims | None = None
    leftovers: Leftovers | None = None
    shapes: Shapes | None = None
    opening: Callable[[Sequence[str]], Mapping[str, Mapping[str, str]]] | None = None
    together: Callable[[Sequence[Exchange]], list[Receipt]] | None = None
    withdraw: Callable[[Sequence[str]], None] | None = None
    row_hashes: Callable[[str], Iterator[pa.RecordBatch]] | None = None
    listed: Callable[[], Catalog] | None = None
    rest: Callable[[], None] | None = None
    close: Callable[[], None] = lambda: None

    def resolve(self, live: str) -> CollectionInfo:
        """The collection that the live name leads to now, through its pointer if it is one."""
        followed = self.cutover.follow(live) if self.cutover else None
        return followed or self.catalog.describe(live)

    # A part that is needed. Each raises PreflightError where the store lacks it.

    def to_write(self) -> Writer:
        if self.writer is None:
            raise self._refusal("it can only be read")
        return self.writer

    def to_search(self) -> Search:
        if self.search is None:
            raise self._refusal("it has no search of its own")
        return self.search

    def to_move(self) -> Cutover:
        if self.cutover is None:
            raise self._refusal("no name moves in it")
        return self.cutover

    def to_claim(self) -> Claims:
        if self.claims is None:
            raise self._refusal("it keeps no claims")
        return self.claims

    def _refusal(self, what: str) -> PreflightError:
        return PreflightError(f"{self.url}: {what}", "Give another store as target.url.")
