"""The move of a live name: who waits for it, what is checked, and which way the tables take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from reembed.errors import LockedError, PreflightError, SourceChangedError
from reembed.stores.postgres import capture as pg_capture
from reembed.stores.postgres.catalog import Catalog
from reembed.stores.postgres.client import Connection, mapped
from reembed.stores.postgres.locks.hold import Hold
from reembed.stores.postgres.move import columns as pg_columns
from reembed.stores.postgres.move.rename import exchange_names, rename_table
from reembed.stores.postgres.schema import notes as pg_notes
from reembed.stores.postgres.schema.dependents import dependents
from reembed.stores.postgres.schema.layout import read_columns, table_by_oid
from reembed.stores.postgres.schema.names import ENTITIES, check_identifier, find_table, place_for
from reembed.stores.postgres.schema.table import Table
from reembed.stores.values import Exchange

ALONE_SECONDS = 60.0
"""How long writers wait at most where the caller does not hold them."""


class Mover:
    """Moves live names of one database."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._hold: Hold | None = None

    @property
    def holding(self) -> bool:
        """Whether the writers of a live name wait."""
        return self._hold is not None

    def hold(self, live: str, seconds: float, incoming: str) -> None:
        """Let the writers of a live name wait, for at most so long."""
        self.release()
        outgoing = self._catalog.tables_of_name(live)
        arriving = self._catalog.tables(incoming)
        with mapped(self._catalog.url):
            self._refuse_forbidden(outgoing)
            by_name = self._by_name(outgoing, arriving)
            if not by_name:
                self._copy_ahead(seconds, list(zip(outgoing, arriving, strict=False)))
        self._hold = Hold(self._catalog.url, seconds)
        try:
            self._hold.writers_of(outgoing, heir=not by_name)
        except BaseException:
            self.release()
            raise

    def _copy_ahead(self, seconds: float, pairs: list[tuple[Table, Table]]) -> None:
        """Copy vectors to their new columns, and index them, while writers wait."""
        pg_columns.add_columns(self._catalog.main, pairs)
        hold = Hold(self._catalog.url, seconds)
        try:
            hold.writers_of([old for old, _ in pairs])
            for old, new in pairs:
                pg_columns.copy_vectors(hold.connection, old, new)
            hold.commit()
        finally:
            hold.close()

    def release(self) -> None:
        """Let everybody go on; what was not committed is undone."""
        hold, self._hold = self._hold, None
        if hold is not None:
            hold.close()

    def exchange(self, exchange: Exchange) -> None:
        """See `Cutover.exchange`."""
        incoming = self._incoming(exchange)
        if incoming is None:
            return
        if exchange.outgoing_id is None:  # a new live name
            main = self._catalog.main
            with mapped(self._catalog.url), main.transaction():
                for table in incoming:
                    _, bare = place_for(main, exchange.live, table.schema)
                    rename_table(main, table, f"{bare}{ENTITIES}" if table.prefix else bare)
            return
        alone = self._hold is None
        if alone:
            self.hold(exchange.live, ALONE_SECONDS, exchange.incoming_id)
        assert self._hold is not None, "it is held"
        try:
            self._move(self._hold, exchange, incoming)
        finally:
            if alone:
                self.release()

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

    def _refuse_forbidden(self, tables: Sequence[Table]) -> None:
        """Raise PreflightError where something has come since the plan that allows no exchange."""
        for table in tables:
            stays = self._catalog.stays(table)
            forbidden = dependents(self._catalog.main, table, stays=stays).forbidden
            if forbidden:
                raise PreflightError(
                    f"{table.label} cannot be exchanged: {'; '.join(forbidden)}",
                    "Nothing was moved. Remove that, or set swap.kind: config to leave the new "
                    "collection ready under its own name.",
                )

    def _incoming(self, exchange: Exchange) -> list[Table] | None:
        """The tables that take the live name; None if they have it already.

        Raises:
            SourceChangedError, PreflightError: see `Cutover.exchange`.
        """
        live = find_table(self._catalog.main, exchange.live)
        now = self._catalog.describe_found(live).id if live else None
        if now == exchange.incoming_id:
            return None
        for id in filter(None, (exchange.incoming_id, exchange.outgoing_id)):
            if self._catalog.found(id) is None:
                raise SourceChangedError(
                    f"the table with the id {id} is gone, so {exchange.live!r} cannot move",
                    "Somebody dropped it; nothing was moved.",
                )
        if now != exchange.outgoing_id:
            raise SourceChangedError(
                f"{exchange.live!r} leads to another table (id {now}) than the one to be exchanged "
                f"(id {exchange.outgoing_id})",
                "Somebody renamed it or created it again; nothing was moved.",
            )
        return self._catalog.tables(exchange.incoming_id)

    def _move(self, hold: Hold, exchange: Exchange, incoming: list[Table]) -> None:
        live = find_table(self._catalog.main, exchange.live)
        outgoing = self._catalog.parts(live) if live else []
        if len(outgoing) != len(incoming):
            raise SourceChangedError(
                f"{exchange.live!r} has {len(outgoing)} tables by now and the new collection "
                f"{len(incoming)}: the application has made one meanwhile",
                "Run the same command again: it is carried then.",
            )
        by_name = self._by_name(outgoing, incoming)
        aside = outgoing[0] if by_name else incoming[0]  # whichever table gets the parked name
        _, bare = place_for(self._catalog.main, exchange.parked)
        if aside.schema == outgoing[0].schema:  # nothing moves by way of another schema
            _, bare = place_for(self._catalog.main, exchange.parked, aside.schema)
        parked = [f"{bare}{ENTITIES}" if table.prefix else bare for table in outgoing]
        with mapped(self._catalog.url):
            if by_name:
                self._check_free(outgoing, parked, incoming)
            else:
                self._copy_rest(hold, list(zip(outgoing, incoming, strict=True)))
            hold.fence()
            hold.everybody_of([*outgoing, *incoming])
            if by_name:
                exchange_names(hold.connection, outgoing, incoming, parked)
                for table in incoming:
                    named = next(o for o in outgoing if o.prefix == table.prefix)
                    if table.text_query is None:  # else a trigger would not see what is written
                        pg_capture.install(hold.connection, replace(table, name=named.name))
            else:
                for old, new in zip(outgoing, incoming, strict=True):
                    pg_columns.rename_columns(hold.connection, old, new)
                    parked_as = parked[outgoing.index(old)]
                    if new.name != parked_as:  # it holds the old vectors by now
                        rename_table(hold.connection, new, parked_as)
            for table in (*outgoing, *incoming):
                away = table in (outgoing if by_name else incoming)
                _note_parked(hold.connection, table, parked=away)
            hold.commit()

    def _copy_rest(self, hold: Hold, pairs: list[tuple[Table, Table]]) -> None:
        """Copy what was written since, and commit it before the columns change names: readers of a
        snapshot from just before the end would find these rows without vectors.

        Raises:
            LockedError: a writer came between.
        """
        live = [old for old, _ in pairs]
        written = [pg_columns.copy_vectors(hold.connection, old, new) for old, new in pairs]
        logged = [pg_capture.length(hold.connection, table) for table in live]
        if not any(written) or None in logged:
            return
        hold.hand_over(live)
        more = [pg_columns.copy_vectors(hold.connection, old, new) for old, new in pairs]
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


def _note_parked(connection: Connection, table: Table, *, parked: bool) -> None:
    """Note the name of a table that is not live, by which a copy of it can be told from a backup of
    the live one."""
    found = table_by_oid(connection, table.oid)
    assert found is not None, "it is locked"
    now = replace(
        table, schema=found[1], name=found[2], columns=read_columns(connection, table.oid)
    )
    note = pg_notes.read_note(connection, now)
    changed = note | {"parked": now.label} if parked else _without(note, "parked")
    if changed != note:
        pg_notes.write_note(connection, now, changed)


def _without(note: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in note.items() if name != key}
