"""Which indexes a live table's vectors had when others were made like them.

The new vectors get theirs from the manifest and from what the live table had when the shadow was
full, and the old ones go with their column or their table. So what the application's migrations
have made or dropped since is known only if what there was is noted: with the vectors of the run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psycopg import sql

from reembed.stores.postgres.client import Connection, fetch_all
from reembed.stores.postgres.schema.hanging import INDEXES
from reembed.stores.postgres.schema.indexes import prefix_of_pgvector, retyped
from reembed.stores.postgres.schema.layout import COMING
from reembed.stores.postgres.schema.notes import HAD, NOTED, read_note, write_note
from reembed.stores.postgres.schema.table import Table


@dataclass(frozen=True)
class Had:
    """An index that reads a vector column.

    Attributes:
        tail: its definition from ` USING` on, which names no table.
    """

    name: str
    unique: bool
    tail: str

    @property
    def meaning(self) -> tuple[bool, str]:
        return self.unique, self.tail


def note_kept(connection: Connection, live: Table, noted: Table) -> None:
    """Note which indexes the live table's vectors have now, with the vectors of a run.

    Args:
        noted: the table that has these by now.
    """
    note = read_note(connection, noted)
    if "like" not in note:  # a table of no run
        return
    had = {
        **note.get(HAD, {}),
        str(live.oid): [[*vars(one).values()] for one in _of(connection, live)],
    }
    if had != note.get(HAD):
        write_note(connection, noted, note | {HAD: had})


def changed_indexes(
    connection: Connection, live: Table, other: Table, *, back: bool = False
) -> list[str]:
    """What has become of the indexes of the live table's vectors since they were noted, but for
    what was done to the other table's vectors as well, in words.

    Args:
        back: whether it goes back to the other table, which has what was given up since.
    """
    notes = [read_note(connection, table) for table in (live, other)]
    noted = [note[HAD][str(live.oid)] for note in notes if str(live.oid) in note.get(HAD, {})]
    if not noted:
        return []
    now, was = _of(connection, live), [Had(*one) for one in noted[0]]
    there = {one.meaning for one in _of(connection, other)} | _coming(notes[1], other)
    prefix = prefix_of_pgvector(connection)

    def lacks(one: Had) -> bool:
        like = (one.unique, retyped(one.tail, live, other, prefix))
        return one.meaning not in there and like not in there

    before, by_now = {one.meaning for one in was}, {one.meaning for one in now}
    found = [
        f"the index {one.name} has come or changed"
        for one in now
        if one.meaning not in before and lacks(one)
    ]
    if not back:
        found += [
            f"the index {one.name} is gone"
            for one in was
            if one.meaning not in by_now and not lacks(one)
        ]
    return found


def _of(connection: Connection, table: Table) -> list[Had]:
    of_table = {"oid": table.oid, "column": table.column(table.vector).number}
    return [Had(*row[:3]) for row in fetch_all(connection, INDEXES, of_table)]


def _coming(note: dict[str, Any], table: Table) -> set[tuple[bool, str]]:
    """Indexes that these vectors get when they are live, as if their column had its own name."""
    own = sql.Identifier(table.vector).as_string(None)
    plain = own[1:-1] if own[1:-1].isidentifier() and own[1:-1].islower() else own
    return {(one["unique"], one["tail"].replace(COMING, plain)) for one in note.get(NOTED, [])}
