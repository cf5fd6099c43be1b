"""What the notes of tables say once they have moved: see `schema.notes`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from reembed.stores.postgres.client import Connection
from reembed.stores.postgres.schema import notes as pg_notes
from reembed.stores.postgres.schema.kept_indexes import note_kept
from reembed.stores.postgres.schema.layout import read_columns, table_by_oid
from reembed.stores.postgres.schema.table import Table


def stays_on_record(
    connection: Connection, incoming: Sequence[Table], outgoing: Sequence[Table]
) -> bool:
    """Whether the manifest of the incoming tables asks for a record of their model; on the way
    back to tables of no run, that of the outgoing ones."""
    notes = [pg_notes.read_note(connection, table) for table in incoming]
    if not any("model" in note for note in notes):
        notes = [pg_notes.read_note(connection, table) for table in outgoing]
    return any(note.get(pg_notes.RECORD) for note in notes)


def note_move(
    connection: Connection, table: Table, model: Mapping[str, Any] | None, *, parked: bool,
    record: bool,
) -> None:  # fmt: skip
    """Note of a table that is not live its name, by which a copy of it can be told from a backup of
    the live one; and of the live one when it was moved and which model embeds its texts, which
    `reembed.live` reads. On the way back that is a table without a note, and it gets one only if
    the manifest asks for a `record`."""
    now = _now(connection, table)
    note = pg_notes.read_note(connection, now)
    if parked:
        changed = _without(note, "moved") | {"parked": now.label}
    else:
        changed = _without(note, "parked")
        made_by = note.get("model") or model
        if made_by and (record or not changed.keys() <= {"comment"}):
            moved = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
            changed |= {"model": dict(made_by), "moved": moved}
        if made_by and record:
            changed[pg_notes.RECORD] = True
    if changed != note:
        pg_notes.write_note(connection, now, changed)


def note_indexes_of(connection: Connection, live: Table, tables: Sequence[Table]) -> None:
    """Note which indexes the vectors of the table that is live now have.

    Args:
        tables: the two that have moved, of which one has the vectors of a run.
    """
    now = _now(connection, live)
    for table in tables:
        note_kept(connection, now, _now(connection, table))


def _now(connection: Connection, table: Table) -> Table:
    """A table under the name and with the columns that it has by now."""
    found = table_by_oid(connection, table.oid)
    assert found is not None, "it is locked"
    return replace(
        table, schema=found[1], name=found[2], columns=read_columns(connection, table.oid)
    )


def _without(note: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in note.items() if name != key}
