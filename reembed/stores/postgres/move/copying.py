"""Vectors on their way to the other table's new column, while an application writes.

All rows are copied page by page, and then those that were written to since, of which the reader of
the capture's log and the writer of the new collection tell. What is left for the moment in which
writers wait is the last of these.

A copy of a vector is no write of the application's: its triggers and ours must not fire for it, and
nothing else can tell it apart for a role that is only the table's owner. So each group of rows is
written in a transaction that lets writers wait, with the triggers off, and is kept so small that
this takes a tenth of a second. Nobody has to be ended for our sake: we hold no row while we wait
for the table.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from psycopg import errors, sql

from reembed.records import chunked
from reembed.stores.postgres.capture import Touched
from reembed.stores.postgres.client import Connection, fetch_one
from reembed.stores.postgres.locks.hold import WRITERS, patiently
from reembed.stores.postgres.move.comparing import PAGE_ROWS, compared, pages, spread
from reembed.stores.postgres.move.pace import HELD_SECONDS, PAUSE_SHARE, Pace
from reembed.stores.postgres.move.triggers import INSERT_BIT, UPDATE_BIT, switch_off, switch_on
from reembed.stores.postgres.schema.ids import any_of, usable
from reembed.stores.postgres.schema.layout import COMING
from reembed.stores.postgres.schema.table import Table
from reembed.stores.postgres.search_path import operator_of_pgvector

FIRST_ROWS, MOST_ROWS = 20, 100
"""Rows that are written at a time, at first and at most. Those that go into every index take many
times as long as those that stay in their block, and none of them says so before."""

UNFLUSHED = "SET LOCAL synchronous_commit = off"
"""A group's commit, for which writers wait, waits for no disk and no standby. The rows of a copy
count as copied once `_flush` has waited for all of its groups."""


@dataclass
class Copying:
    """What is known of two tables whose vectors are on their way.

    Attributes:
        touched: ids of rows that were written to since they were copied.
        empty: by table, ids of rows for which the other one has no vector.
        whole: whether `touched` names all of them; if not, any row may have been written to.
        unique: whether an index of the live table keeps the coming vectors unique.
        entries: by table, those of its log that are accounted for.
        pace: whether the copying keeps up.
    """

    live: Table
    other: Table
    touched: set[str] = field(default_factory=set)
    empty: dict[int, set[str]] = field(default_factory=dict)
    whole: bool = True
    unique: bool = False
    entries: dict[int, set[int]] = field(default_factory=dict)
    pace: Pace = field(default_factory=Pace)

    def of(self, table: Table) -> bool:
        return table.oid in (self.live.oid, self.other.oid)

    def saw(self, ids: Iterable[str] | None) -> None:
        """Some rows were written to, or, given None, any may have been."""
        if ids is None:
            self.whole = False
        else:
            self.touched.update(ids)

    def read(self, table: Table, log: Touched) -> None:
        """A table's log was read; what was read of it before is accounted for."""
        known = self.entries.setdefault(table.oid, set())
        more = log.without(known)
        known.update(more.log)
        self.saw(None if more.truncated else [id for id in more.log.values() if id is not None])

    def loose(self, table: Table) -> list[str] | None:
        """Ids of rows of a table that may be without a vector or a row in the other one; None where
        any may be."""
        if not self.whole:
            return None
        return sorted(self.empty.get(table.oid, set()) | self.touched)


def copy_all(connection: Connection, copying: Copying) -> int:
    """Copy the vectors of all rows, each way, while the application goes on. Returns how many rows
    the two tables have.

    Raises:
        LockedError: transactions that write to the live table do not end.
    """
    rows, live, other = 0, copying.live, copying.other
    for table, giver in ((live, other), (other, live)):
        group = Group(connection, table, giver, table is live, copying.unique)
        empty = copying.empty[table.oid] = set()
        for page in pages(connection, table, giver):
            group.copy([row.id for row in spread(page) if row.differs])
            empty.update(row.id for row in page if row.without)
            rows += len(page)
        copying.touched.update(group.refused)
    _flush(connection, copying)
    return rows


def copy_touched(connection: Connection, copying: Copying) -> int:
    """Copy the vectors of the rows that were written to since, each way. Returns how many rows that
    were."""
    ids, took = sorted(copying.touched), 0.0
    refused: list[str] = []
    for table, giver in ((copying.live, copying.other), (copying.other, copying.live)):
        group = Group(connection, table, giver, table is copying.live, copying.unique)
        group.seconds, group.pause = copying.pace.held_seconds, copying.pace.pause_share
        group.copy(ids)
        refused += group.refused
        took += group.took
    copying.pace.wrote(len(ids), took)
    _flush(connection, copying)
    _done(connection, copying, ids)
    copying.touched.update(refused)
    return len(ids)


def _flush(connection: Connection, copying: Copying) -> None:
    """Wait until all that was committed is on the disk: a lock on a row of the table that nobody
    works with, whose commit waits for it. A server that crashes may lose what was not, and this
    process need not notice it."""
    connection.execute(
        sql.SQL("SELECT 1 FROM {} LIMIT 1 FOR UPDATE").format(copying.other.identifier)
    )


def _done(connection: Connection, copying: Copying, ids: Sequence[str]) -> None:
    """Note that the vectors of these rows were copied, and which of them had none."""
    for table, giver in ((copying.live, copying.other), (copying.other, copying.live)):
        empty = copying.empty.setdefault(table.oid, set())
        for some in chunked(ids, PAGE_ROWS):
            found = compared(connection, table, giver, any_of(table, usable(table, some)))
            empty -= set(some)
            empty.update(row.id for row in found if row.without)
    copying.touched.difference_update(ids)


def copy_held(connection: Connection, copying: Copying) -> int:
    """Copy what was written to last, each way. Returns the number of rows of the live table that
    were written.

    Args:
        connection: in a transaction that holds the live table's writers.
    """
    return _copy(connection, copying, sorted(copying.touched) if copying.whole else None)


def _copy(connection: Connection, copying: Copying, ids: Sequence[str] | None) -> int:
    live, other = copying.live, copying.other
    with_triggers = switch_off(connection, live, UPDATE_BIT)
    written = write(connection, live, other, ids, clear=copying.unique)
    write(connection, other, live, ids)
    switch_on(connection, live, with_triggers)
    return written


def copy_fitting(connection: Connection, copying: Copying, waited: float) -> int | None:
    """Copy as many of the rows that were written to last as fit into the time for which writers may
    wait, unless all of them do. Returns how many, or None where all fit and none was copied.

    Args:
        connection: in a transaction that holds the live table's writers.
        waited: seconds for which they have waited by now.

    Raises:
        SourceChangedError: more are written each time than fit.
    """
    if not copying.whole or copying.unique:  # all rows are looked at, or exchange values
        return None
    left, pace, began = sorted(copying.touched), copying.pace, time.monotonic()
    ids = left[: pace.fitting(copying.live, len(left), waited)]
    if len(ids) == len(left):
        return None
    _copy(connection, copying, ids)
    pace.wrote(len(ids), time.monotonic() - began)
    _done(connection, copying, ids)
    return len(ids)


@dataclass
class Group:
    """Rows of a table that are written together, as many as fit into the time.

    Attributes:
        held: whether the table's writers wait meanwhile, and its triggers are off.
        unique: whether another row may hold a vector still that one of these gets.
        seconds: for which they wait; the size is made to fit.
        pause: how long they have for themselves then, as a share of that.
        refused: ids of those for which one did.
        took: seconds in all, without the pauses.
    """

    connection: Connection
    table: Table
    giver: Table
    held: bool
    unique: bool = False
    seconds: float = HELD_SECONDS
    pause: float = PAUSE_SHARE
    size: int = FIRST_ROWS
    refused: list[str] = field(default_factory=list)
    took: float = 0.0

    def copy(self, ids: Sequence[str]) -> None:
        """Copy the vectors of these rows, in as many transactions as it takes. What rows took that
        were copied before says nothing of the first of these, which may go into every index."""
        self.size = FIRST_ROWS
        at = 0
        while at < len(ids):
            some = ids[at : at + self.size]
            took = max(self._write(some), 1e-3)
            at, self.took = at + len(some), self.took + took
            wanted = int(len(some) * min(2.0, self.seconds / took))
            self.size = min(max(wanted, 1), MOST_ROWS)
            if self.held:
                time.sleep(took * self.pause)

    def _write(self, ids: Sequence[str]) -> float:
        """Write these rows. Returns for how many seconds writers waited; the time in which we wait
        for them is not ours to shorten."""
        began = time.monotonic()
        if not self.held:
            with self.connection.transaction():
                self.connection.execute(UNFLUSHED)
                write(self.connection, self.table, self.giver, ids)
            return time.monotonic() - began

        def work() -> None:
            nonlocal began
            self.connection.execute(
                sql.SQL("LOCK TABLE {} IN {} MODE").format(
                    self.table.identifier, sql.SQL(WRITERS)
                )
            )  # fmt: skip
            began = time.monotonic()
            self.connection.execute(UNFLUSHED)
            off = switch_off(self.connection, self.table, UPDATE_BIT)
            write(self.connection, self.table, self.giver, ids, clear=self.unique)
            switch_on(self.connection, self.table, off)

        try:
            patiently(self.connection, [self.table], work, mode=WRITERS)
        except errors.UniqueViolation:  # all of them change places while writers are held
            self.refused.extend(ids)
        return time.monotonic() - began


def write(
    connection: Connection, table: Table, giver: Table, ids: Sequence[str] | None, *,
    clear: bool = False,
) -> int:  # fmt: skip
    """Let rows of a table have the other one's vectors in the new column. Returns how many rows
    were written: those that have them are left alone.

    Args:
        ids: of the rows; None of all.
        clear: whether all of them give up what they have before any gets another one.
    """
    if ids is not None and not (ids := usable(table, ids)):
        return 0
    for value in ("NULL", "j.v") if clear else ("j.v",):
        taken = sql.SQL("t.{} IS NOT NULL" if value == "NULL" else "true")
        cursor = connection.execute(
            sql.SQL(
                "UPDATE {table} t SET {new} = {value} FROM (SELECT o.{id} AS id, g.{vector} AS v "
                "FROM (SELECT {id} FROM {table} WHERE {these}) o LEFT JOIN {giver} g ON "
                "g.{giver_id} = o.{id}) j WHERE t.{id} = j.id AND {taken} AND NOT coalesce("
                "t.{new} {equals} j.v, t.{new} IS NULL AND j.v IS NULL)"
            ).format(
                taken=taken.format(sql.Identifier(COMING)) if value == "NULL" else taken,
                table=table.identifier, new=sql.Identifier(COMING), value=sql.SQL(value),
                id=sql.Identifier(table.id), vector=sql.Identifier(giver.vector),
                giver=giver.identifier, giver_id=sql.Identifier(giver.id),
                equals=operator_of_pgvector(connection, "="),
                these=sql.SQL("true") if ids is None else any_of(table, ids),
            )
        )  # fmt: skip
    return cursor.rowcount


def complete(
    connection: Connection, table: Table, giver: Table, ids: Sequence[str] | None, *,
    only_with_vector: bool,
) -> None:  # fmt: skip
    """Give a table the rows that only the other one has: such as are in quarantine, and so not in
    the shadow, whose old vectors must not go with the old column.

    Args:
        ids: of the other table's rows that may be missing here; None where any may be.
        only_with_vector: leave out those that have none there either: deleted by the application
            since, for nobody follows what happens to a row that is no record.
    """
    if ids is not None and not (ids := usable(giver, ids)):
        return
    columns = [c.name for c in giver.columns if not c.generated and c.name != giver.vector]
    missing = sql.SQL(
        "FROM (SELECT * FROM {} WHERE {}) g WHERE NOT EXISTS (SELECT FROM {} t WHERE t.{} = g.{}){}"
    ).format(
        giver.identifier, sql.SQL("true") if ids is None else any_of(giver, ids), table.identifier,
        sql.Identifier(table.id), sql.Identifier(giver.id),
        sql.SQL(" AND g.{} IS NOT NULL").format(sql.Identifier(giver.vector))
        if only_with_vector else sql.SQL(""),
    )  # fmt: skip
    if fetch_one(connection, sql.SQL("SELECT 1 {} LIMIT 1").format(missing)) is None:
        return
    if table.column(table.vector).not_null:  # a column that goes
        connection.execute(
            sql.SQL("ALTER TABLE {} ALTER {} DROP NOT NULL").format(
                table.identifier, sql.Identifier(table.vector)
            )
        )
    triggers = switch_off(connection, table, INSERT_BIT)
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    connection.execute(
        sql.SQL("INSERT INTO {} ({}, {}) OVERRIDING SYSTEM VALUE SELECT {}, g.{} {}").format(
            table.identifier, names, sql.Identifier(COMING), names, sql.Identifier(giver.vector),
            missing,
        )
    )  # fmt: skip
    switch_on(connection, table, triggers)
