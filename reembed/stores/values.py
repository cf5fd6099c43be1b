"""The values in which a store and its callers speak."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from reembed.errors import PreflightError, RefusedError, UnreachableError
from reembed.manifest import FunctionChoice, Layout, Model, SwapKind, WithoutVector
from reembed.records import Metric

Where = Mapping[str, Any] | str | None
"""A store's own filter, as `source.where` has it."""
WriteMode = Literal["add", "replace"]
"""What becomes of a record that is there already: it stays as it is, or the new one replaces it."""


@dataclass(frozen=True)
class CollectionInfo:
    """A collection as the store describes it at one moment.

    Attributes:
        id: the store's own object id, stable under renames.
        count: records, all of them.
        dimensions: of its vectors, None where it never had one.
        metric: the metric its index really uses.
        metadata: the collection's own metadata, None without any.
        index: store-specific index settings, as `CollectionSpec.index` takes them.
        model: what the store recorded of the model, as manifest keys; None if nothing usable.
        database: which database it is in, whatever name and address that goes by; empty where the
            store cannot tell.
        layout: pgvector: how the table is laid out; empty where a store has one layout.
        function: name of the embedding function that the store keeps with it; empty for none.
        key_indexes: Chroma: indexes of documents and metadata that are not as it makes them.
        columns: Postgres: the columns of its tables, by name, with their types.
        holds: Postgres: which column is the id, the text, the metadata and the vector.
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
    function: str = ""
    key_indexes: dict[str, bool] = field(default_factory=dict)
    columns: dict[str, str] = field(default_factory=dict)
    holds: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def restless(lease: str, tries: int) -> UnreachableError:
    """The error of a claim that found another one at every try, each gone at the next."""
    return UnreachableError(
        f"{lease} changed {tries} times while it was being claimed",
        "Other commands are starting and ending here. Run again to resume.",
    )


def kept_dimensions(source: CollectionInfo) -> int:
    """The dimension of vectors that are moved as they are. Raises PreflightError without one."""
    if source.dimensions is None:
        raise PreflightError(
            f"{source.name!r} has no one dimension for its vectors, so model: keep cannot move "
            "them as they are",
            "Move it to a model (model), or only the rows of one dimension (source.where).",
        )
    return source.dimensions


@dataclass(frozen=True)
class CollectionSpec:
    """A collection to be made.

    Attributes:
        index: store-specific index settings.
        model: embeds query texts where the store can; None where it is not known.
        like: object id of a collection of this store whose shape (columns, constraints) it has,
            and with which it is to exchange names.
        function: whether the store keeps an embedding function with it, where stores do.
        function_before: name of the one that is kept with the collection whose place it takes.
        key_indexes: indexes of documents and metadata that are not as the store makes them.
    """

    name: str
    dimensions: int
    metric: Metric
    index: Mapping[str, Any]
    metadata: Mapping[str, Any] | None
    model: Model | None
    like: str | None = None
    function: FunctionChoice = "record"
    function_before: str = ""
    key_indexes: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True)
class SpecCheck:
    """What a store says of a collection before it is made.

    Attributes:
        notes: what `plan` should tell.
        refusals: why it would not be made; empty if it would.
        tried: what is refused of a trial, where nothing else is. That may have a cause that is told
            in better words elsewhere.
        records: raises PreflightError for the first of these records that could not be kept; None
            where all can.
    """

    notes: tuple[str, ...] = ()
    refusals: tuple[RefusedError, ...] = ()
    tried: tuple[RefusedError, ...] = ()
    records: Callable[[pa.RecordBatch], None] | None = None

    def refuse(self) -> None:
        """Raise the first refusal, if there is one."""
        for refusal in (*self.refusals, *self.tried):
            raise refusal


def refusals(*checks: Callable[[], object]) -> tuple[RefusedError, ...]:
    """What these checks refuse, in their order."""
    found: list[RefusedError] = []
    for check in checks:
        try:
            check()
        except RefusedError as error:
            found.append(error)
    return tuple(found)


@dataclass(frozen=True)
class StoreOptions:
    """What a manifest says of its source besides the URL.

    Attributes:
        data_dir: Chroma over HTTP: the server's own directory, if this machine can reach it.
        layout: pgvector: how the table is laid out.
        columns: pgvector: names of columns, by what they hold.
        headers_env: Chroma over HTTP: headers of every request, each with the environment variable
            that holds its value.
        schema: Postgres: where a run makes its tables; default: beside the source's.
        where: Postgres: the condition of the rows that are to be moved.
        text_query: Postgres: SQL that gives key and text of each row, where it is no column.
        without_vector: Postgres: what becomes of rows that have no vector.
        create: Chroma on a path: make the database where there is none.
        embeds: False where nothing gives a record a vector that it lacks.
    """

    data_dir: Path | None = None
    layout: Layout = "auto"
    columns: Mapping[Any, str] = field(default_factory=dict)
    headers_env: Mapping[str, str] = field(default_factory=dict)
    schema: str | None = None
    where: Where = None
    text_query: str | None = None
    without_vector: WithoutVector = "embed"
    create: bool = False
    embeds: bool = True


@dataclass(frozen=True)
class Survey:
    """What `plan` should tell about a collection that is to be moved.

    Attributes:
        notes: how it is laid out, and what its swap will do to what hangs on it.
        blockers: why it cannot be swapped.
        refusals: why no run can begin, or not as the manifest says.
    """

    notes: tuple[str, ...] = ()
    blockers: tuple[str, ...] = ()
    refusals: tuple[PreflightError, ...] = ()


SOME = 20
"""Names that a refusal lists of a store's."""


def some_of(names: Sequence[str]) -> str:
    """The first names, and how many more there are: a store may have a thousand."""
    more = f" and {len(names) - SOME:,} more" if len(names) > SOME else ""
    return (", ".join(names[:SOME]) or "none") + more


@dataclass(frozen=True)
class Capabilities:
    """How a store can be reached from here.

    Attributes:
        local_path: the directory whose disk the shadow fills, None if it is not on this machine.
        notes: what `plan` should tell the user about this store.
        open_in: other processes that have a store open that takes one writer, e.g.
            `pid 123 (python app.py)`; those that can be seen.
    """

    local_path: Path | None = None
    notes: tuple[str, ...] = ()
    open_in: tuple[str, ...] = ()


@dataclass(frozen=True)
class Change:
    """What was written to a collection since a mark.

    Attributes:
        ids: those that may have been written or deleted, and all that were; None where the store
            cannot tell, so that every record must be compared.
        mark: of the moment before anything was looked at; None where the store can give none.
        token: for `Capture.acknowledge`; None where there is nothing to acknowledge.
    """

    ids: list[str] | None
    mark: str | None
    token: object = None


@dataclass(frozen=True)
class Exchange:
    """One move of the live name from a collection to another.

    Attributes:
        live: the name the application reads.
        incoming_id: the collection that takes the live name.
        outgoing_id: the collection that has it now; None where the live name is new.
        parked: the name that the outgoing collection gets.
        model: settings of the incoming collection's model (manifest keys), for a pointer's readers.
        shape_id: where the live name is new: a collection that `Shapes.make` made for the incoming
            one, which takes over its names of constraints and the like, and its rights; it is
            dropped.
    """

    live: str
    incoming_id: str
    outgoing_id: str | None
    parked: str
    model: dict[str, Any] | None = None
    shape_id: str | None = None


@dataclass(frozen=True)
class Prepared:
    """What was done about a move before writers are held.

    Attributes:
        rows: records whose vectors were copied, or looked at.
        ready: whether writers may be held now. If not, what was written meanwhile is to be carried,
            and the same asked for again: the store says when it helps no more.
    """

    rows: int = 0
    ready: bool = True


@dataclass(frozen=True)
class Receipt:
    """What an exchange did.

    Attributes:
        kind: the swap kind used.
        gap_seconds: how long the live name did not exist, measured; None where there is no gap.
        intruder: name of a collection that somebody made under the live name in the gap, moved
            aside so that its records can be merged; None without one.
        mark: for `Changes.since`, where the store logs writes to the incoming collection from the
            very moment of the move; None where it does not.
        held_seconds: how long writers waited for the move, measured; None where none did.
    """

    kind: SwapKind
    gap_seconds: float | None = None
    intruder: str | None = None
    mark: str | None = None
    held_seconds: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Leftover:
    """Something that runs have left in a database, and that was copied from it to this one.

    Attributes:
        kind: triggers, function, log, column, table, note or lease.
        name: of it, or of what it hangs on.
        about: what it is, in words.
    """

    kind: str
    name: str
    about: str


@dataclass(frozen=True)
class Orphans:
    """Something of one kind that a database holds and that belongs to no record.

    Attributes:
        kind: rows of metadata, or vectors that a search finds; rest does no harm.
        about: what it is and does, in words that go on after the number.
        harmful: whether it reaches records or answers, and does not just take room.
        remove: deletes it, after it has written it to a file, and returns how much; None where that
            is not to be done from here.
        ids: of it, where it has such.
    """

    kind: Literal["metadata", "vectors", "rest"]
    count: int
    about: str
    harmful: bool = False
    remove: Callable[[Path], int] | None = None
    ids: tuple[str, ...] = ()
