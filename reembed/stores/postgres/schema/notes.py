"""Notes: what a vector column's comment says of the vectors, and of whose place its table takes.

A comment is copied: by `CREATE TABLE .. LIKE`, by a dump, by `CREATE DATABASE .. TEMPLATE`. So each
note says whose it is, by cluster, database and table (`of`), and counts for that table alone. Of a
note that was copied nothing is left but the comment that the column's owner had written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from reembed.errors import PreflightError
from reembed.stores.postgres.client import Connection, database_key, fetch_all, fetch_one
from reembed.stores.postgres.schema import indexes as pg_indexes
from reembed.stores.postgres.schema.hanging import sound_indexes
from reembed.stores.postgres.schema.indexes import OPERATORS
from reembed.stores.postgres.schema.table import Table

RECORD = "record"
"""The key of a note whose model stays on record: `target.embedding_function: record`."""
LASTING = ("comment", "model", "moved", RECORD)
"""What such a note still says when a run is done: which model embeds the texts of the live name,
and since when. `reembed.live` and the next migration read it. Of others the comment is left."""
NOTE = "reembed:"
"""What a comment begins with that is a note."""
NOTED = "indexes"
"""The key of a note under which the indexes stand that its vectors have when they are live."""
HAD = "had"
"""The key of a note under which stand, by a live table's oid, the indexes that its vectors had."""
OF = "of"
"""The key of a note under which it says whose it is."""


@dataclass(frozen=True)
class Noted:
    """A column that has a note, its own table's or a copied one.

    Attributes:
        note: all that it says.
        own: whether it was written for this very table in this very database.
    """

    oid: int
    schema: str
    table: str
    column: str
    note: dict[str, Any]
    own: bool

    @property
    def label(self) -> str:
        return f"{self.schema}.{self.table}"


def identity(connection: Connection, oid: int) -> str:
    """Which table this is, among those of all databases: no copy has it."""
    return f"{database_key(connection)}/{oid}"


def write_note(connection: Connection, table: Table, note: Mapping[str, Any]) -> None:
    """Keep a note (model, collection metadata) as the vector column's comment. `comment` is what
    its owner had written there, which stands alone where there is nothing else to note."""
    comment_column(connection, table, table.vector, note)


def comment_column(
    connection: Connection, table: Table, column: str, note: Mapping[str, Any]
) -> None:
    """Write a note as a column's comment; see `write_note`."""
    own = {key: value for key, value in note.items() if key != OF}
    text = own.get("comment")
    if not set(own) <= {"comment"}:
        before = ""
        if text and set(own) <= set(LASTING):  # it stays, so its owner's comment is to be read
            before = f"{own.pop('comment')}\n"
        ours = json.dumps(own | {OF: identity(connection, table.oid)}, sort_keys=True)
        text = f"{before}{NOTE}{ours}"
    connection.execute(
        sql.SQL("COMMENT ON COLUMN {}.{} IS {}").format(
            table.identifier, sql.Identifier(column), sql.Literal(text)
        )
    )


def read_note(connection: Connection, table: Table) -> dict[str, Any]:
    """The note of a vector column; empty where there is none, or a copied one."""
    row = fetch_one(
        connection, "SELECT col_description(%s, %s)", [table.oid, table.column(table.vector).number]
    )
    return counting(parse_note(row[0] if row else None), identity(connection, table.oid))


def counting(note: dict[str, Any], whose: str) -> dict[str, Any]:
    """What counts of a note for the table of this identity: all, or its owner's comment alone."""
    if note.get(OF) == whose or set(note) <= {"comment"}:
        return {key: value for key, value in note.items() if key != OF}
    return {"comment": note["comment"]} if note.get("comment") else {}


def parse_note(text: str | None) -> dict[str, Any]:
    """What a comment notes; one that is not ours is kept as `comment`."""
    if not text:
        return {}
    before, mark, ours = ("\n" + text).rpartition(f"\n{NOTE}")
    if not mark:
        return {"comment": text}
    try:
        note = json.loads(ours)
    except (ValueError, RecursionError):
        return {"comment": text}
    if not isinstance(note, dict):
        return {"comment": text}
    if before:
        note["comment"] = before[1:]
    return {key: value for key, value in note.items() if _is_sound(key, value)}


def _is_sound(key: str, value: Any) -> bool:
    """Whether a part of a note can be what it stands for: its table's owner can write anything into
    a comment, and parts of it become settings of statements."""
    try:
        if key in ("like", "stands_for"):
            return type(value) is int and 0 < value < 2**32
        if key == "metric":
            return value in OPERATORS
        if key == "index":
            pg_indexes.check_index(value)
        if key == NOTED:
            return sound_indexes(value)
        if key == HAD:
            return all(
                oid.isdigit() and [type(part) for part in one] == [str, bool, str]
                for oid, had in value.items()
                for one in had
            )
        if key == "settling":
            return (
                value.keys() == {"checks", "not_null"}
                and isinstance(value["not_null"], str)
                and isinstance(value["checks"], list)
                and all(isinstance(name, str) for name in value["checks"])
            )
    except (PreflightError, TypeError, AttributeError, KeyError, ValueError):
        return False
    return {
        "model": isinstance(value, dict), "metadata": isinstance(value, dict | None),
        "comment": isinstance(value, str), "moved": isinstance(value, str),
        "not_null": isinstance(value, bool), RECORD: isinstance(value, bool),
    }.get(key, True)  # fmt: skip


def noted_columns(connection: Connection) -> list[Noted]:
    """Every column of the database that has a note."""
    rows = fetch_all(
        connection,
        "SELECT c.oid, nspname, relname, attname, description FROM pg_description JOIN "
        "pg_attribute ON attrelid = objoid AND attnum = objsubid JOIN pg_class c ON c.oid = objoid "
        "JOIN pg_namespace n ON n.oid = relnamespace WHERE classoid = 'pg_class'::regclass AND "
        "objsubid > 0 AND strpos(E'\\n' || description, E'\\n' || %s) > 0 ORDER BY nspname, "
        "relname, attnum",
        [NOTE],
    )
    found = []
    for oid, schema, table, column, text in rows:
        note = parse_note(text)
        if OF in note or not set(note) <= {"comment"}:
            own = note.get(OF) == identity(connection, oid)
            found.append(Noted(int(oid), schema, table, column, note, own))
    return found


def stands_for(connection: Connection, table: Table) -> int:
    """The oid of the table whose collection this one holds: its own, but for exchanged columns."""
    return int(read_note(connection, table).get("stands_for", table.oid))


def standing_in(connection: Connection, oid: int) -> int | None:
    """The oid of the table that holds the collection of table `oid`; None where that is gone, and
    the table of this oid holds another one's.

    Whoever may make a table can write into its comment that it holds another one's collection. So
    that counts only in a table of the same owner, or of a role that could act as us.

    Raises:
        PreflightError: two tables say that they do, or one of another owner after an exchange.
    """
    notes = [one for one in noted_columns(connection) if one.own and "stands_for" in one.note]
    claiming = [one for one in notes if one.note["stands_for"] == oid]
    holders = [one for one in claiming if _may_hold(connection, one.oid, oid)]
    if len(holders) > 1:
        raise PreflightError(
            f"the comments of {' and '.join(one.label for one in holders)} both say that they hold "
            f"the collection of the table with the oid {oid}",
            "Somebody has edited one: remove the comment of the vector column that is wrong "
            "(COMMENT ON COLUMN .. IS NULL).",
        )
    if holders:
        return holders[0].oid
    exchanged = next((one for one in notes if one.oid == oid), None)
    if exchanged is None:
        return oid
    other = next((one for one in claiming if one.oid == exchanged.note["stands_for"]), None)
    if other is not None:
        raise PreflightError(
            f"the comment of {other.label} says that it holds the collection of "
            f"{exchanged.label}, and they belong to different roles",
            "If one of them has got another owner since the swap, give both the same one (ALTER "
            "TABLE .. OWNER TO ..); if not, somebody has made it up: drop it or its comment.",
        )
    return None


def _may_hold(connection: Connection, holder: int, oid: int) -> bool:
    """Whether a table's comment may say that it holds the collection of another one."""
    if holder == oid:
        return True
    row = fetch_one(
        connection,
        "SELECT pg_has_role(h.relowner, (SELECT oid FROM pg_roles WHERE rolname = current_user), "
        "'MEMBER') OR h.relowner = o.relowner OR o.oid IS NULL AND pg_has_role(h.relowner, "
        "'USAGE') FROM pg_class h LEFT JOIN pg_class o ON o.oid = %s WHERE h.oid = %s",
        [oid, holder],
    )
    return bool(row and row[0])


def remove_spent(connection: Connection, table: Table) -> None:
    """Keep of a note what lasts once the table that it tells of is gone, and with it every way
    back."""
    note = read_note(connection, table)
    others = {note[key] for key in ("stands_for", "like") if key in note} - {table.oid}
    there = fetch_all(connection, "SELECT 1 FROM pg_class WHERE oid = ANY (%s)", [list(others)])
    if others and not there:
        lasting = LASTING if note.get(RECORD) else ("comment",)
        write_note(connection, table, {key: note[key] for key in lasting if key in note})
