"""The move of a live name: who waits for it, what is checked, and which way the tables take."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from psycopg import sql

from reembed.errors import (
    CollectionNotFoundError,
    LockedError,
    PreflightError,
    SourceChangedError,
)
from reembed.stores.postgres import capture as pg_capture
from reembed.stores.postgres.catalog import Catalog
from reembed.stores.postgres.client import Connection, mapped
from reembed.stores.postgres.locks.hold import Hold
from reembed.stores.postgres.move import columns as pg_columns
from reembed.stores.postgres.move import indexing as pg_indexing
from reembed.stores.postgres.move.ahead import Ahead
from reembed.stores.postgres.move.copying import Copying, copy_fitting, copy_held
from reembed.stores.postgres.move.noting import note_indexes_of, note_move, stays_on_record
from reembed.stores.postgres.move.refusals import refuse_forbidden, refuse_reshaped
from reembed.stores.postgres.move.rename import exchange_names, rename_table
from reembed.stores.postgres.schema import notes as pg_notes
from reembed.stores.postgres.schema.dependents import dependents
from reembed.stores.postgres.schema.names import ENTITIES, check_identifier, find_table, place_for
from reembed.stores.postgres.schema.table import Table
from reembed.stores.values import Exchange, Prepared

ALONE_SECONDS = 60.0
"""How long writers wait at most where the caller does not hold them."""


@dataclass(frozen=True)
class Move:
    """What one live name's move does to tables.

    Attributes:
        outgoing: tables that have the live name, a unit's second one after its first.
        incoming: those that take it, in the same order.
        parked: names, without a schema, for the tables that are not live afterwards.
        by_name: whether tables exchange their names; else their vector columns.
        model: manifest keys of the model that made the incoming vectors, where they are known.
    """

    outgoing: list[Table]
    incoming: list[Table]
    parked: list[str]
    by_name: bool
    model: Mapping[str, Any] | None = None

    @property
    def tables(self) -> list[Table]:
        return [*self.outgoing, *self.incoming]

    @property
    def pairs(self) -> list[tuple[Table, Table]]:
        return list(zip(self.outgoing, self.incoming, strict=True))


class Mover:
    """Moves live names of one database."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._hold: Hold | None = None
        self.ahead = Ahead(catalog)
        self.held_seconds: float | None = None

    @property
    def holding(self) -> bool:
        """Whether the writers of a live name wait."""
        return self._hold is not None

    def prepare(self, live: str, incoming: str) -> Prepared:
        """Copy and index vectors, where columns are exchanged, before writers are held, or what is
        left, while they are; see `Cutover.prepare`."""
        outgoing = self._catalog.tables_of_name(live)
        arriving = self._catalog.tables(incoming)
        if [one.oid for one in outgoing] == [one.oid for one in arriving]:  # it has moved
            return Prepared()
        if self._hold is not None:
            return self._copy_fitting(self._hold, outgoing)
        with mapped(self._catalog.url):
            refuse_forbidden(self._catalog, outgoing)
            by_name = self._by_name(outgoing, arriving)
            both = list(zip(outgoing, arriving, strict=False))
            refuse_reshaped(self._catalog.main, both, by_name=by_name)
            if by_name:
                return Prepared()
            self._finish(outgoing)
            done = [self.ahead.copy(*pair) for pair in both]
        return Prepared(sum(one.rows for one in done), all(one.ready for one in done))

    def _copy_fitting(self, hold: Hold, outgoing: Sequence[Table]) -> Prepared:
        """See `copy_fitting`. If that is not all, it is committed, and writers go on."""
        copies = [self.ahead.copies[one.oid] for one in outgoing if one.oid in self.ahead.copies]
        with mapped(self._catalog.url):
            done = [copy_fitting(hold.connection, one, hold.seconds or 0.0) for one in copies]
            if all(one is None for one in done):
                return Prepared()
            hold.commit()
        self.release()
        return Prepared(sum(filter(None, done)), ready=False)

    def hold(self, incoming: Mapping[str, str], seconds: float) -> None:
        """Let the writers of live names wait, for at most so long.

        Args:
            incoming: live name to the id of the collection that is about to take it.
        """
        self.release()
        live, by_column = list[Table](), False
        with mapped(self._catalog.url):
            for name, id in incoming.items():
                outgoing, arriving = self._catalog.tables_of_name(name), self._catalog.tables(id)
                refuse_forbidden(self._catalog, outgoing)
                live += outgoing
                if not self._by_name(outgoing, arriving):
                    by_column = True
                    while not all(map(self.ahead.is_ready, outgoing)):
                        self.prepare(name, id)
        self._hold = Hold(self._catalog.url, seconds)
        try:
            self._hold.writers_of(live, heir=by_column)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Let everybody go on; what was not committed is undone."""
        self.ahead.release()
        hold, self._hold = self._hold, None
        if hold is not None:
            hold.close()

    def exchange(self, exchanges: Sequence[Exchange]) -> None:
        """Move live names that are not there yet, all in one transaction; see `Cutover.exchange`.
        A name that nothing has is given before it."""
        self.held_seconds = None
        waiting = [(one, found) for one in exchanges if (found := self._incoming(one)) is not None]
        for one, incoming in waiting:
            if one.outgoing_id is None:  # a new live name
                with mapped(self._catalog.url), self._catalog.main.transaction():
                    self._name(one, incoming)
        waiting = [(one, incoming) for one, incoming in waiting if one.outgoing_id is not None]
        if not waiting:
            self._settle(exchanges)
            return
        alone = self._hold is None
        if alone:
            self.hold({one.live: one.incoming_id for one, _ in waiting}, ALONE_SECONDS)
            for copying in self.ahead.copies.values():
                copying.saw(None)  # nobody has looked since writers wait
        assert self._hold is not None, "it is held"
        try:
            self._move(self._hold, [self._move_of(*one) for one in waiting])
        finally:
            if alone:
                self.release()
        self._settle(exchanges)

    def _settle(self, exchanges: Sequence[Exchange]) -> None:
        """Do what can wait until writers go on; where something is in the way, until later."""
        self.ahead.copies.clear()
        for one in exchanges:
            with contextlib.suppress(LockedError, PreflightError), mapped(self._catalog.url):
                self._finish(self._catalog.tables_of_name(one.live))

    def _finish(self, tables: Sequence[Table]) -> None:
        for table in tables:
            pg_columns.settle(self._catalog.main, table)

    def _name(self, exchange: Exchange, incoming: Sequence[Table]) -> None:
        """Give the incoming tables a name that nobody has, and what their shape has of names."""
        main, found = self._catalog.main, None
        if exchange.shape_id is not None:
            found = self._catalog.found(exchange.shape_id)
        shapes = self._catalog.parts(found) if found else []
        for table in incoming:
            _, bare = place_for(main, exchange.live, table.schema)
            name = f"{bare}{ENTITIES}" if table.prefix else bare
            shape = next((one for one in shapes if one.prefix == table.prefix), None)
            if shape is None:
                rename_table(main, table, name)
                continue
            rename_table(main, shape, name)
            named = replace(shape, name=name)
            exchange_names(main, [named], [table], [f"reembed_{shape.oid}_shape"])
            away = sql.Identifier(shape.schema, f"reembed_{shape.oid}_shape")
            main.execute(sql.SQL("DROP TABLE {}").format(away))

    def _by_name(self, outgoing: Sequence[Table], incoming: Sequence[Table]) -> bool:
        """Whether the tables exchange their names: nothing hangs on any of them."""
        notes = [pg_notes.read_note(self._catalog.main, table) for table in (*outgoing, *incoming)]
        if any("stands_for" in note for note in notes):  # they exchanged columns, and do so back
            return False
        if {table.schema for table in outgoing} != {table.schema for table in incoming}:
            return False
        if any(self._catalog.stays(table) for table in outgoing):
            return False
        return all(dependents(self._catalog.main, table).leaf for table in (*outgoing, *incoming))

    def _incoming(self, exchange: Exchange) -> list[Table] | None:
        """The tables that take the live name; None if they have it already.

        Raises:
            SourceChangedError, PreflightError: see `Cutover.exchange`.
        """
        live = find_table(self._catalog.main, exchange.live)
        now = self._catalog.id_of(live) if live else None
        if now == exchange.incoming_id:
            return None
        try:
            incoming = self._catalog.tables(exchange.incoming_id)
            if exchange.outgoing_id is not None:
                self._catalog.tables(exchange.outgoing_id)
        except CollectionNotFoundError as error:
            raise SourceChangedError(
                f"{exchange.live!r} cannot move: {error.message}", error.hint
            ) from error
        if now != exchange.outgoing_id:
            raise SourceChangedError(
                f"{exchange.live!r} leads to another table (id {now}) than the one to be exchanged "
                f"(id {exchange.outgoing_id}): somebody renamed it or created it again",
                "Nothing was moved. Rename the one that is there, give the other one its name "
                "again, and run the same command again.",
            )
        return incoming

    def _move_of(self, exchange: Exchange, incoming: list[Table]) -> Move:
        """How a live name moves.

        Raises:
            SourceChangedError: one of the two is more tables than the other.
            PreflightError: a name is taken.
        """
        live = find_table(self._catalog.main, exchange.live)
        outgoing = self._catalog.parts(live) if live else []
        if len(outgoing) != len(incoming):
            raise SourceChangedError(
                f"{exchange.live!r} has {len(outgoing)} tables by now and the new collection "
                f"{len(incoming)}: the application has made one meanwhile",
                "Run the same command again: it is copied then.",
            )
        by_name = self._by_name(outgoing, incoming)
        with mapped(self._catalog.url):
            both = list(zip(outgoing, incoming, strict=True))
            refuse_reshaped(self._catalog.main, both, by_name=by_name)
        aside = outgoing[0] if by_name else incoming[0]  # whichever table gets the parked name
        _, bare = place_for(self._catalog.main, exchange.parked)
        if aside.schema == outgoing[0].schema:  # nothing moves by way of another schema
            _, bare = place_for(self._catalog.main, exchange.parked, aside.schema)
        parked = [f"{bare}{ENTITIES}" if table.prefix else bare for table in outgoing]
        if by_name:
            with mapped(self._catalog.url):
                self._check_free(outgoing, parked, incoming)
        return Move(outgoing, incoming, parked, by_name, exchange.model)

    def _move(self, hold: Hold, moves: Sequence[Move]) -> None:
        """Make all these moves in one transaction."""
        with mapped(self._catalog.url):
            by_column = [pair for move in moves if not move.by_name for pair in move.pairs]
            if by_column:
                self._copy_rest(hold, by_column, [old for move in moves for old in move.outgoing])
            hold.fence()
            hold.everybody_of([table for move in moves for table in move.tables])
            for move in moves:
                _exchange(hold.connection, move, self.ahead.copies)
            hold.commit()
        self.held_seconds = hold.seconds

    def _copy_rest(
        self, hold: Hold, pairs: list[tuple[Table, Table]], live: Sequence[Table]
    ) -> None:
        """Copy what was written since, and commit it before the columns change names: readers of a
        snapshot from just before the end would find these rows without vectors.

        Args:
            live: all tables whose writers are held, those too that exchange their names.

        Raises:
            LockedError: a writer came between.
        """
        copies = [self.ahead.copies[old.oid] for old, _ in pairs]
        written = [copy_held(hold.connection, copying) for copying in copies]
        logged = [pg_capture.length(hold.connection, table) for table in live]
        if not any(written) or None in logged:
            return
        hold.hand_over(live)
        more = [copy_held(hold.connection, copying) for copying in copies]
        if any(more) or logged != [pg_capture.length(hold.connection, table) for table in live]:
            raise LockedError(
                f"{live[0].label}: a writer came in while its last vectors were committed",
                "Nothing was moved. Run the same command again.",
            )

    def _check_free(
        self, outgoing: Sequence[Table], parked: Sequence[str], incoming: Sequence[Table]
    ) -> None:
        for table, name in zip(outgoing, parked, strict=True):
            check_identifier(name)
            there = find_table(self._catalog.main, f"{table.schema}.{name}")
            if there is not None and there[0] not in {one.oid for one in incoming}:
                raise PreflightError(
                    f"the name {name!r}, which the old table would get, is taken",
                    "Rename that table or move it away; nothing was moved.",
                )


def _exchange(connection: Connection, move: Move, copies: Mapping[int, Copying]) -> None:
    """Exchange the tables of one move.

    Args:
        connection: in a transaction that locks all of them.
        copies: by the oid of a live table, what is known of its vectors' way.
    """
    record = stays_on_record(connection, move.incoming, move.outgoing)
    if move.by_name:
        exchange_names(connection, move.outgoing, move.incoming, move.parked)
        for table in move.incoming:
            named = next(old for old in move.outgoing if old.prefix == table.prefix)
            if table.text_query is None:  # else a trigger would not see what is written
                pg_capture.install(connection, replace(table, name=named.name))
    else:
        for (old, new), parked in zip(move.pairs, move.parked, strict=True):
            wanted = pg_indexing.noted_indexes(connection, new)
            pg_columns.rename_columns(connection, copies[old.oid], wanted)
            if new.name != parked:  # it holds the old vectors by now
                rename_table(connection, new, parked)
    away = move.outgoing if move.by_name else move.incoming
    for table in move.tables:
        note_move(connection, table, move.model, parked=table in away, record=record)
    for old, new in move.pairs:
        note_indexes_of(connection, new if move.by_name else old, (old, new))
