"""Making shadow tables, like the source's or plain.

A shadow has the source's columns, defaults, checks, comments and settings from the start, its keys
and unique constraints too; `pg_indexes` makes the indexes once it is full.
"""

from __future__ import annotations

from psycopg import sql

from reembed.stores.postgres.client import Connection, fetch_all, fetch_one
from reembed.stores.postgres.schema.access import close_relation
from reembed.stores.postgres.schema.hanging import COMPRESSION, STORAGE
from reembed.stores.postgres.schema.layout import COMING
from reembed.stores.postgres.schema.names import find_table
from reembed.stores.postgres.schema.table import Table
from reembed.stores.postgres.search_path import of_pgvector


def create_plain(connection: Connection, schema: str, name: str, type: str, d: int) -> None:
    """A table of reembed's own: id, document, metadata, uri, embedding."""
    connection.execute(
        sql.SQL(
            "CREATE TABLE {} (id text PRIMARY KEY, document text, metadata json, uri text, "
            "embedding {}({}))"
        ).format(sql.Identifier(schema, name), of_pgvector(connection, type), sql.Literal(d))
    )
    found = find_table(connection, f"{schema}.{name}")
    assert found is not None, "it has just been made"
    close_relation(connection, found[0])


def create_like(
    connection: Connection, table: Table, place: tuple[str, str], type: str, d: int
) -> None:
    """An empty table like another one, whose vector column is of this type.

    A column that takes vectors of any length is typed: it can be indexed then, and refuses vectors
    of another model. Only keys and unique constraints are made now; `make_indexes` makes the rest.
    """
    shadow = sql.Identifier(*place)
    storage = fetch_one(
        connection,
        "SELECT amname FROM pg_class c JOIN pg_am a ON a.oid = relam WHERE c.oid = %s",
        [table.oid],
    )
    assert storage is not None, "the table is there"
    connection.execute(
        sql.SQL("CREATE TABLE {} (LIKE {} INCLUDING ALL EXCLUDING INDEXES) USING {}").format(
            shadow, table.identifier, sql.Identifier(storage[0])
        )
    )
    connection.execute(  # of a move that was given up: no column of the application's
        sql.SQL("ALTER TABLE {} DROP COLUMN IF EXISTS {}").format(shadow, sql.Identifier(COMING))
    )
    vector = sql.Identifier(table.vector)
    written = sql.SQL("{}({})").format(of_pgvector(connection, type), sql.Literal(d))
    connection.execute(
        sql.SQL("ALTER TABLE {} ALTER {} DROP DEFAULT, ALTER {} TYPE {}").format(
            shadow, vector, vector, written
        )
    )
    for (definition,) in fetch_all(
        connection,
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = %s AND contype "
        "IN ('p', 'u', 'x') ORDER BY contype, conname",
        [table.oid],
    ):
        connection.execute(sql.SQL("ALTER TABLE {} ADD {}").format(shadow, sql.SQL(definition)))
    _copy_relation(connection, table, place)
    _close(connection, table, place)


def _close(connection: Connection, table: Table, place: tuple[str, str]) -> None:
    """Let nobody but the owner see the new table, whatever rights new tables get here. Where rows
    of the source are hidden from some, so are all of these, or a GRANT ON ALL TABLES would show
    them."""
    found = find_table(connection, ".".join(place))
    assert found is not None, "it has just been made"
    close_relation(connection, found[0])
    row = fetch_one(
        connection,
        "SELECT relrowsecurity, relforcerowsecurity FROM pg_class WHERE oid = %s",
        [table.oid],
    )
    for hidden, how in zip(row or (), ("ENABLE", "FORCE"), strict=False):
        if hidden:
            connection.execute(
                sql.SQL("ALTER TABLE {} {} ROW LEVEL SECURITY").format(
                    sql.Identifier(*place), sql.SQL(how)
                )
            )


_COLUMN_SETTINGS = """
SELECT attname, attstattarget, attoptions,
  CASE WHEN attstorage <> typstorage THEN attstorage::text END, attcompression::text
  FROM pg_attribute JOIN pg_type t ON t.oid = atttypid
  WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped AND (attstattarget >= 0
    OR attoptions IS NOT NULL OR attstorage <> typstorage OR attcompression <> '')
"""


def _copy_relation(connection: Connection, table: Table, place: tuple[str, str]) -> None:
    """What LIKE leaves out: owner, settings and comment of a table, settings of its columns."""
    row = fetch_one(
        connection,
        "SELECT c.relowner::regrole::text, c.relowner = (SELECT oid FROM pg_roles WHERE rolname = "
        "current_user), array_cat(c.reloptions, (SELECT array_agg('toast.' || o) FROM "
        "unnest(t.reloptions) o)), obj_description(c.oid, 'pg_class'), c.relpersistence = 'u', "
        "c.relreplident, spcname FROM pg_class c LEFT JOIN pg_class t ON t.oid = c.reltoastrelid "
        "LEFT JOIN pg_tablespace s ON s.oid = c.reltablespace WHERE c.oid = %s",
        [table.oid],
    )
    assert row is not None, "the table is there"
    owner, ours, options, comment, unlogged, identity, space = row
    shadow = sql.Identifier(*place)
    changes: list[sql.Composable] = []
    if options:
        changes.append(sql.SQL("SET ({})").format(sql.SQL(", ".join(options))))
    if unlogged:
        changes.append(sql.SQL("SET UNLOGGED"))
    if identity in ("f", "n"):
        changes.append(sql.SQL(f"REPLICA IDENTITY {'FULL' if identity == 'f' else 'NOTHING'}"))
    if space:
        changes.append(sql.SQL("SET TABLESPACE {}").format(sql.Identifier(space)))
    rows = fetch_all(connection, _COLUMN_SETTINGS, [table.oid])
    for column, target, settings, storage, compression in rows:
        if storage:  # of the vector column: a change of its type has set it back
            changes.append(
                sql.SQL("ALTER {} SET STORAGE {}").format(
                    sql.Identifier(column), sql.SQL(STORAGE[storage])
                )
            )
        if compression:  # likewise
            changes.append(
                sql.SQL("ALTER {} SET COMPRESSION {}").format(
                    sql.Identifier(column), sql.SQL(COMPRESSION[compression])
                )
            )
        if target is not None and target >= 0:
            changes.append(
                sql.SQL("ALTER {} SET STATISTICS {}").format(
                    sql.Identifier(column), sql.Literal(target)
                )
            )
        if settings:
            changes.append(
                sql.SQL("ALTER {} SET ({})").format(
                    sql.Identifier(column), sql.SQL(", ".join(settings))
                )
            )
    if not ours:
        changes.append(sql.SQL("OWNER TO {}").format(sql.SQL(owner)))
        for (statistics,) in fetch_all(
            connection,
            "SELECT s.stxname FROM pg_statistic_ext s JOIN pg_class c ON c.oid = stxrelid JOIN "
            "pg_namespace n ON n.oid = relnamespace WHERE nspname = %s AND relname = %s AND "
            "stxnamespace = n.oid",
            [*place],
        ):
            connection.execute(
                sql.SQL("ALTER STATISTICS {} OWNER TO {}").format(
                    sql.Identifier(place[0], statistics), sql.SQL(owner)
                )
            )
    if comment:
        connection.execute(
            sql.SQL("COMMENT ON TABLE {} IS {}").format(shadow, sql.Literal(comment))
        )
    for change in changes:
        connection.execute(sql.SQL("ALTER TABLE {} {}").format(shadow, change))
