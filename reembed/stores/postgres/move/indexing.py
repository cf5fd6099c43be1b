"""The indexes of the vectors to come, made while the application goes on.

What they are to be is noted with the vectors that take the column's place: from the shadow's own
indexes before the swap, from the live table's for the way back. The shadow's are dropped as soon as
they are noted, for whatever is carried to it would have to be indexed twice.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace

from psycopg import Error, sql

from reembed.stores.postgres.client import Connection, connect, fetch_all, fetch_one
from reembed.stores.postgres.locks.hold import wait_for_older
from reembed.stores.postgres.schema.building import forbid_workers, lacks_shared_memory, prepare
from reembed.stores.postgres.schema.counterparts import constraint_pairs, index_pairs
from reembed.stores.postgres.schema.hanging import Index, read_indexes
from reembed.stores.postgres.schema.notes import NOTED, read_note, write_note
from reembed.stores.postgres.schema.table import Table

SETTINGS = {
    "lock_timeout": "10min",  # for transactions that Postgres waits for at the end of a build
    "client_connection_check_interval": "2s",  # or the build of a killed process goes on
    "default_tablespace": "",
}
_THERE = """
SELECT c.relname::text, indisvalid, indisunique, spcname::text, substr(pg_get_indexdef(indexrelid),
  1 + length(format('CREATE %%sINDEX %%I ON %%I.%%I', CASE WHEN indisunique THEN 'UNIQUE ' ELSE ''
  END, c.relname, nspname, t.relname)))
FROM pg_index JOIN pg_class c ON c.oid = indexrelid JOIN pg_class t ON t.oid = indrelid
JOIN pg_namespace n ON n.oid = t.relnamespace LEFT JOIN pg_tablespace s ON s.oid = c.reltablespace
WHERE indrelid = %s AND c.relname ~ %s
"""


def note_indexes(connection: Connection, live: Table, other: Table) -> list[Index]:
    """The indexes that the live table's coming vectors get; noted with the other table's vectors,
    whose own ones are dropped then, but for those that keep values unique."""
    note, noted = read_note(connection, other), noted_indexes(connection, other)
    pairs = [*index_pairs(connection, live, other), *constraint_pairs(connection, live, other)]
    names = {its_name: name for name, its_name in pairs}
    with connection.transaction():
        found, own = [], read_indexes(connection, other)
        for one in own:
            name = names.get(one.name) or _free_name(connection, live, [*names.values()])
            names[one.name] = name
            found.append(replace(one, name=name))
        if NOTED in note:
            found = noted
        write_note(connection, other, note | {NOTED: [one.to_dict() for one in found]})
        for one in own:
            if not one.unique:
                connection.execute(
                    sql.SQL("DROP INDEX {}").format(sql.Identifier(other.schema, one.name))
                )
    return found


def noted_indexes(connection: Connection, other: Table) -> list[Index]:
    """The indexes that stand in the note of these vectors."""
    return [Index(**one) for one in read_note(connection, other).get(NOTED, [])]


def _free_name(connection: Connection, live: Table, taken: Sequence[str]) -> str:
    """As Postgres names an index of the vector column."""
    stem = f"{live.name[:28]}_{live.vector[:26]}_idx"
    for number in range(1000):
        name = f"{stem}{number or ''}"
        if name not in taken and not fetch_one(
            connection,
            "SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = "
            "%s AND relname = %s",
            [live.schema, name],
        ):
            return name
    raise AssertionError("one of a thousand names is free")


def coming_name(live: Table, number: int) -> str:
    """What an index of the coming column is called until it takes its place."""
    return f"reembed_{live.oid}_{number}"


def build_indexes(url: str, live: Table, wanted: Sequence[Index]) -> None:
    """Make the indexes of the coming column, while the application reads and writes; those that
    are there are left. What a killed build has left is dropped and made again.

    Raises:
        LockedError: transactions that are older than the build do not end.
    """
    with contextlib.closing(connect(url)) as builder:
        builder.execute(
            "SELECT set_config(s.name, value, false) FROM unnest(%s::text[], %s::text[]) s (name, "
            "value) JOIN pg_settings p USING (name)",
            [list(SETTINGS), list(SETTINGS.values())],
        )
        there = {
            row[0]: row[1:]
            for row in fetch_all(builder, _THERE, [live.oid, f"^reembed_{live.oid}_[0-9]+$"])
        }
        for number, one in enumerate(wanted):
            name = coming_name(live, number)
            found = there.pop(name, None)
            if found == (True, one.unique, one.space, one.tail):
                continue
            if found is not None:
                _drop(builder, live, name)
            prepare(builder, live, one.tail, lasting=True)
            try:
                _create(builder, live, name, one)
            except Error as error:
                if not lacks_shared_memory(error):
                    raise
                forbid_workers(builder, lasting=True)
                _drop(builder, live, name)
                _create(builder, live, name, one)
        for name in there:
            _drop(builder, live, name)


def _drop(builder: Connection, live: Table, name: str) -> None:
    builder.execute(
        sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(sql.Identifier(live.schema, name))
    )


def _create(builder: Connection, live: Table, name: str, index: Index) -> None:
    wait_for_older(builder, f"{live.label}: the index of the new vectors cannot be made")
    builder.execute(
        sql.SQL("SET default_tablespace = {}").format(sql.Literal(index.space or ""))
    )  # fmt: skip
    builder.execute(
        sql.SQL("CREATE {}INDEX CONCURRENTLY {} ON {}{}").format(
            sql.SQL("UNIQUE " if index.unique else ""), sql.Identifier(name), live.identifier,
            sql.SQL(index.tail),
        ),
        binary=True,  # so it is one statement, whatever a note says
    )  # fmt: skip
    for number, target in index.statistics:
        builder.execute(
            sql.SQL("ALTER INDEX {} ALTER {} SET STATISTICS {}").format(
                sql.Identifier(live.schema, name), sql.Literal(number), sql.Literal(target)
            )
        )


def place_indexes(connection: Connection, live: Table, wanted: Sequence[Index]) -> None:
    """Let the indexes of a column that has taken the vectors' place have their names and all that a
    definition leaves out.

    Args:
        connection: in the transaction in which it does.
    """
    for number, one in enumerate(wanted):
        name = sql.Identifier(one.name)
        index = sql.Identifier(live.schema, one.name)
        if one.constraint is not None:
            statements = [
                sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} UNIQUE USING INDEX {} {}").format(
                    live.identifier, name, sql.Identifier(coming_name(live, number)),
                    sql.SQL(one.constraint),
                )
            ]  # fmt: skip
        else:
            statements = [
                sql.SQL("ALTER INDEX {} RENAME TO {}").format(
                    sql.Identifier(live.schema, coming_name(live, number)), name
                )
            ]
        if one.comment is not None:
            statements.append(
                sql.SQL("COMMENT ON INDEX {} IS {}").format(index, sql.Literal(one.comment))
            )
        if one.about is not None:
            statements.append(
                sql.SQL("COMMENT ON CONSTRAINT {} ON {} IS {}").format(
                    name, live.identifier, sql.Literal(one.about)
                )
            )
        if one.clustered:
            statements.append(sql.SQL("ALTER TABLE {} CLUSTER ON {}").format(live.identifier, name))
        for statement in statements:
            connection.execute(statement)


def built(connection: Connection, live: Table, wanted: Sequence[Index]) -> bool:
    """Whether all of these indexes of the coming column are there and whole."""
    rows = fetch_all(connection, _THERE, [live.oid, f"^reembed_{live.oid}_[0-9]+$"])
    valid = {row[0] for row in rows if row[1]}
    return valid == {coming_name(live, number) for number in range(len(wanted))}
