"""Capture of live writes by triggers, as a queue of ids.

Each write to a captured table logs the ids it touched; the reader takes the entries it can see,
reads those rows as they are by then, and deletes exactly these entries. Nothing is told by "a
sequence number above the last one": numbers are given before the commit, so that a watermark would
miss late commits (measured: 7 of 900 lost), and inserts alone are not all writes (61 lost).

The triggers are ENABLE ALWAYS, or `session_replication_role = replica` would pass by them. Log
table and functions lie in the table's own schema and are named by its oid, so they are found after
renames and by a process that knows nothing of the one that made them.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from psycopg import errors, sql

from reembed.stores.postgres.client import (
    SETTINGS,
    Connection,
    beside_parameters,
    fetch_all,
    fetch_one,
)
from reembed.stores.postgres.locks.hold import patiently
from reembed.stores.postgres.schema.table import Table

TRIGGERS = ("zz_reembed_rows", "zz_reembed_truncate")
"""Fire last: triggers of one event run by name."""
TRUNCATED = "t"

_WRITTEN_AS_WE_READ = sql.SQL(" ").join(
    sql.SQL("SET {} = {}").format(sql.Identifier(name), sql.Literal(SETTINGS[name]))
    for name in ("DateStyle", "IntervalStyle", "TimeZone", "bytea_output", "extra_float_digits")
)
"""So that an id is the same text, whatever the writer's session has set."""

_FUNCTION = """
CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp {settings} AS $reembed$
BEGIN
  IF TG_OP = 'TRUNCATE' THEN
    INSERT INTO {log} (op) VALUES ('t');
    RETURN NULL;
  END IF;
  IF TG_OP <> 'INSERT' THEN
    INSERT INTO {log} (op, id) VALUES ('r', OLD.{id}::text);
  END IF;
  IF TG_OP = 'INSERT' OR (TG_OP = 'UPDATE' AND NEW.{id}::text <> OLD.{id}::text) THEN
    INSERT INTO {log} (op, id) VALUES ('r', NEW.{id}::text);
  END IF;
  RETURN NULL;
END $reembed$
"""


@dataclass(frozen=True)
class Touched:
    """What a queue holds at one moment.

    Attributes:
        ids: of rows that were written to, without repetition.
        truncated: whether the table was emptied, so that any row may be gone.
        entries: the queue's own numbers, for `forget`.
    """

    ids: list[str]
    truncated: bool
    entries: list[int]


def _log_name(oid: int) -> str:
    return f"reembed_{oid}_log"


def _function_name(oid: int) -> str:
    return f"reembed_{oid}_capture"


def mark(connection: Connection, table: Table) -> str | None:
    """The capture's own mark, new with each installation; None where the table is not captured,
    or a trigger of it is off."""
    row = fetch_one(
        connection,
        "SELECT obj_description(c.oid, 'pg_class') FROM pg_class c JOIN pg_namespace n ON n.oid = "
        "relnamespace WHERE nspname = %s AND relname = %s AND 2 = (SELECT count(*) FROM "
        "pg_trigger WHERE tgrelid = %s AND tgname = ANY (%s) AND tgenabled = 'A')",
        [table.schema, _log_name(table.oid), table.oid, list(TRIGGERS)],
    )
    return row[0] if row else None


def allowed(connection: Connection, table: Table) -> bool:
    """Whether the role may capture a table's writes."""
    row = fetch_one(
        connection,
        "SELECT has_table_privilege(%s::oid, 'TRIGGER') AND has_schema_privilege(%s, 'CREATE') "
        "AND pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = %s",
        [table.oid, table.schema, table.oid],
    )
    return bool(row and row[0])


def install(connection: Connection, table: Table) -> str | None:
    """Capture a table's writes from now on. Returns the mark, None where the role may not.

    It waits for the transactions that write to the table now, and what they wrote is in any
    snapshot taken after.

    Raises:
        LockedError: they do not end.
    """
    there = mark(connection, table)
    if there is not None:
        return there
    if not allowed(connection, table):  # asked first: to be refused, one must wait for the lock
        return None
    remove(connection, table)
    new = f"capture {secrets.token_hex(8)}"
    names = {
        "log": sql.Identifier(table.schema, _log_name(table.oid)),
        "function": sql.Identifier(table.schema, _function_name(table.oid)),
        "id": sql.Identifier(table.id), "table": table.identifier,
        "rows": sql.Identifier(TRIGGERS[0]), "truncate": sql.Identifier(TRIGGERS[1]),
        "settings": _WRITTEN_AS_WE_READ,
    }  # fmt: skip

    def make() -> None:
        for statement in (
            "CREATE TABLE {log} (seq bigserial PRIMARY KEY, op text NOT NULL, id text)",
            "REVOKE ALL ON {log} FROM PUBLIC",
            _FUNCTION,
            "REVOKE ALL ON FUNCTION {function}() FROM PUBLIC",
            "CREATE TRIGGER {rows} AFTER INSERT OR UPDATE OR DELETE ON {table} "
            "FOR EACH ROW EXECUTE FUNCTION {function}()",
            "CREATE TRIGGER {truncate} AFTER TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION {function}()",
            "ALTER TABLE {table} ENABLE ALWAYS TRIGGER {rows}",
            "ALTER TABLE {table} ENABLE ALWAYS TRIGGER {truncate}",
        ):
            connection.execute(sql.SQL(statement).format(**names))
        connection.execute(
            sql.SQL("COMMENT ON TABLE {log} IS {mark}").format(mark=sql.Literal(new), **names)
        )

    try:
        patiently(connection, [table], make)
    except errors.InsufficientPrivilege:
        return None
    return new


def remove(connection: Connection, table: Table) -> None:
    """Remove every trace of a capture, or of half of one. The table may be gone.

    Raises:
        LockedError: transactions that use the table do not end.
    """
    oid = table.oid
    names = fetch_all(
        connection,
        "SELECT nspname, relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace "
        "WHERE c.oid = %s",
        [oid],
    )
    functions = fetch_all(
        connection,
        "SELECT nspname FROM pg_proc JOIN pg_namespace n ON n.oid = pronamespace WHERE proname = "
        "%s AND pronargs = 0",
        [_function_name(oid)],
    )
    logs = fetch_all(
        connection,
        "SELECT nspname FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace WHERE relname = "
        "%s AND relkind = 'r'",
        [_log_name(oid)],
    )
    if not functions and not logs:
        return
    schema, name = names[0] if names else ("", "")

    def undo() -> None:
        if names:
            for trigger in TRIGGERS:
                connection.execute(
                    sql.SQL("DROP TRIGGER IF EXISTS {} ON {}").format(
                        sql.Identifier(trigger), sql.Identifier(schema, name)
                    )
                )
        for (of,) in functions:
            connection.execute(
                sql.SQL("DROP FUNCTION IF EXISTS {}()").format(
                    sql.Identifier(of, _function_name(oid))
                )
            )
        for (of,) in logs:
            connection.execute(
                sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(of, _log_name(oid)))
            )

    patiently(connection, [table], undo)


def length(connection: Connection, table: Table) -> int | None:
    """How many entries the queue holds; None where the table is not captured."""
    if mark(connection, table) is None:
        return None
    row = fetch_one(
        connection,
        sql.SQL("SELECT count(*) FROM {}").format(
            sql.Identifier(table.schema, _log_name(table.oid))
        ),
    )
    return int(row[0]) if row else None


def touched(connection: Connection, table: Table) -> Touched:
    """What the queue holds now."""
    rows = fetch_all(
        connection,
        sql.SQL("SELECT seq, op, id FROM {} ORDER BY seq").format(
            sql.Identifier(table.schema, _log_name(table.oid))
        ),
    )
    ids = dict.fromkeys(table.prefix + id for _, _, id in rows if id is not None)
    return Touched(list(ids), any(op == TRUNCATED for _, op, _ in rows), [row[0] for row in rows])


def forget(connection: Connection, table: Table, entries: list[int]) -> None:
    """Delete exactly these entries."""
    if entries:
        connection.execute(
            sql.SQL("DELETE FROM {} WHERE seq = ANY (%s)").format(
                beside_parameters(sql.Identifier(table.schema, _log_name(table.oid)))
            ),
            [entries],
        )
