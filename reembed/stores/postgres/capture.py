"""Capture of live writes by triggers, as a queue of ids.

Each write to a captured table logs the ids it touched; the reader takes the entries it can see,
reads those rows as they are by then, and deletes exactly these entries. Nothing is told by "a
sequence number above the last one": numbers are given before the commit, so that a watermark would
miss late commits (measured: 7 of 900 lost), and inserts alone are not all writes (61 lost).

The triggers are ENABLE ALWAYS, or `session_replication_role = replica` would pass by them. Log
table and function are named by the table's oid, so they are found after renames and by a process
that knows nothing of the one that made them. All of that is copied with the database: only the
log's comment says, by `identity`, whose it is, and a copy counts for nobody.
"""

from __future__ import annotations

import re
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
from reembed.stores.postgres.schema.access import close_function, close_relation
from reembed.stores.postgres.schema.notes import identity
from reembed.stores.postgres.schema.own import may_own
from reembed.stores.postgres.schema.replication import taking_in
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


_NAMED = re.compile(r"reembed_(\d+)_(?:capture|log)")


def _found(connection: Connection, table: Table) -> tuple[str, str] | None:
    """Schema and mark of a table's own log; None where it is not captured, or a trigger is off."""
    return fetch_one(
        connection,
        "SELECT nspname, mark FROM (SELECT relnamespace, obj_description(oid, 'pg_class') AS mark "
        "FROM pg_class WHERE relname = %(log)s AND relkind = 'r') l JOIN pg_namespace n ON n.oid = "
        "relnamespace WHERE mark LIKE %(whose)s AND 2 = (SELECT count(*) FROM pg_trigger t JOIN "
        "pg_proc f ON f.oid = tgfoid WHERE tgrelid = %(oid)s AND tgname = ANY (%(triggers)s) AND "
        "tgenabled = 'A' AND proname = %(function)s AND pronamespace = relnamespace)",
        {
            "log": _log_name(table.oid), "function": _function_name(table.oid), "oid": table.oid,
            "triggers": list(TRIGGERS), "whose": f"capture % of {identity(connection, table.oid)}",
        },
    )  # fmt: skip


def _log(connection: Connection, table: Table) -> sql.Identifier:
    found = _found(connection, table)
    return sql.Identifier(found[0] if found else table.schema, _log_name(table.oid))


def mark(connection: Connection, table: Table) -> str | None:
    """The capture's own mark, new with each installation; None where the table is not captured,
    or a trigger of it is off, or what is there was copied from another table or database."""
    found = _found(connection, table)
    return found[1] if found else None


def allowed(connection: Connection, table: Table, schema: str | None = None) -> bool:
    """Whether the role may capture a table's writes, and no subscriber stops at the log.

    Args:
        schema: where log and function are made; default: the table's.
    """
    schema = schema or table.schema
    row = fetch_one(
        connection,
        "SELECT has_table_privilege(%s::oid, 'TRIGGER') AND (SELECT "
        "has_schema_privilege(oid, 'CREATE') FROM pg_namespace WHERE nspname = %s) "
        "AND pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = %s",
        [table.oid, schema, table.oid],
    )
    return bool(row and row[0]) and not taking_in(connection, schema)


def install(connection: Connection, table: Table, schema: str | None = None) -> str | None:
    """Capture a table's writes from now on. Returns the mark, None where it is not `allowed`.

    It waits for the transactions that write to the table now, and what they wrote is in any
    snapshot taken after.

    Raises:
        LockedError: they do not end.
    """
    there = mark(connection, table)
    if there is not None:
        return there
    schema = schema or table.schema
    if not allowed(
        connection, table, schema
    ):  # asked first: to be refused, one must wait for the lock
        return None
    remove(connection, table)
    new = f"capture {secrets.token_hex(8)} of {identity(connection, table.oid)}"
    names = {
        "log": sql.Identifier(schema, _log_name(table.oid)),
        "function": sql.Identifier(schema, _function_name(table.oid)),
        "id": sql.Identifier(table.id), "table": table.identifier,
        "rows": sql.Identifier(TRIGGERS[0]), "truncate": sql.Identifier(TRIGGERS[1]),
        "settings": _WRITTEN_AS_WE_READ,
    }  # fmt: skip

    def make() -> None:
        for statement in (
            "CREATE TABLE {log} (seq bigserial PRIMARY KEY, op text NOT NULL, id text)",
            _FUNCTION,
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
        made = fetch_one(
            connection,
            "SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE "
            "nspname = %s AND relname = %s",
            [schema, _log_name(table.oid)],
        )
        assert made is not None, "it has just been made"
        close_relation(connection, int(made[0]))
        close_function(connection, schema, _function_name(table.oid))
        owner = may_own(connection, table.oid, schema)
        if owner is not None:  # who may change the id's type, and so what a cast of it calls
            for statement in (
                "ALTER TABLE {log} OWNER TO {to}",
                "ALTER FUNCTION {function}() OWNER TO {to}",
            ):
                connection.execute(sql.SQL(statement).format(to=sql.SQL(owner), **names))

    try:
        patiently(connection, [table], make)
    except errors.InsufficientPrivilege:
        return None
    return new


def remove(connection: Connection, table: Table) -> None:
    """Remove every trace of a capture, of half of one, or of one that was copied with its table.
    The table may be gone.

    Raises:
        LockedError: transactions that use the table do not end.
    """
    found = triggers_of(connection, [table.oid])
    names = [(trigger.schema, trigger.function) for trigger in found]
    numbers = {name: _NAMED.fullmatch(name) for _, name in names}
    oids = {table.oid, *(int(number[1]) for number in numbers.values() if number)}
    functions = fetch_all(
        connection,
        "SELECT nspname, proname, p.oid FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace "
        "WHERE proname = ANY (%s) AND pronargs = 0 AND prorettype = 'trigger'::regtype",
        [[_function_name(oid) for oid in oids]],
    )
    logs = fetch_all(
        connection,
        "SELECT nspname, relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE "
        "relname = ANY (%s) AND relkind = 'r'",
        [[_log_name(oid) for oid in oids]],
    )
    if not found and not functions and not logs:
        return

    def undo() -> None:
        for trigger in found:
            connection.execute(
                sql.SQL("DROP TRIGGER IF EXISTS {} ON {}").format(
                    sql.Identifier(trigger.name), trigger.table
                )
            )
        kept = set()
        for schema, name, oid in functions:
            if fetch_one(connection, "SELECT 1 FROM pg_trigger WHERE tgfoid = %s LIMIT 1", [oid]):
                kept.add((schema, name.replace("_capture", "_log")))  # another table's
                continue
            connection.execute(
                sql.SQL("DROP FUNCTION IF EXISTS {}()").format(sql.Identifier(schema, name))
            )
        for schema, name in logs:
            if (schema, name) not in kept:
                connection.execute(
                    sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(schema, name))
                )

    patiently(connection, [table], undo)


@dataclass(frozen=True)
class Trigger:
    """A trigger that bears the name of one of a capture's.

    Attributes:
        place: schema and name of its table.
        schema, function: of the function that it calls.
    """

    name: str
    place: tuple[str, str]
    oid: int
    schema: str
    function: str

    @property
    def table(self) -> sql.Identifier:
        return sql.Identifier(*self.place)


def triggers_of(connection: Connection, oids: list[int] | None = None) -> list[Trigger]:
    """Those on some tables, or on all, that a capture made, here or where they were copied from."""
    rows = fetch_all(
        connection,
        "SELECT tgname, n.nspname, relname, c.oid, f.nspname, proname FROM pg_trigger t JOIN "
        "pg_class c ON c.oid = tgrelid JOIN pg_namespace n ON n.oid = relnamespace JOIN pg_proc p "
        "ON p.oid = tgfoid JOIN pg_namespace f ON f.oid = pronamespace WHERE tgname = ANY (%s) AND "
        "proname ~ '^reembed_[0-9]+_capture$' AND NOT tgisinternal AND (%s::oid[] IS NULL OR "
        "tgrelid = ANY (%s::oid[])) ORDER BY 2, 3, 1",
        [list(TRIGGERS), oids, oids],
    )
    return [
        Trigger(name, (schema, table), oid, of, function)
        for name, schema, table, oid, of, function in rows
    ]


def length(connection: Connection, table: Table) -> int | None:
    """How many entries the queue holds; None where the table is not captured."""
    if mark(connection, table) is None:
        return None
    row = fetch_one(
        connection,
        sql.SQL("SELECT count(*) FROM {}").format(_log(connection, table)),
    )
    return int(row[0]) if row else None


def touched(connection: Connection, table: Table) -> Touched:
    """What the queue holds now."""
    rows = fetch_all(
        connection,
        sql.SQL("SELECT seq, op, id FROM {} ORDER BY seq").format(_log(connection, table)),
    )
    ids = dict.fromkeys(table.prefix + id for _, _, id in rows if id is not None)
    return Touched(list(ids), any(op == TRUNCATED for _, op, _ in rows), [row[0] for row in rows])


def forget(connection: Connection, table: Table, entries: list[int]) -> None:
    """Delete exactly these entries."""
    if entries:
        connection.execute(
            sql.SQL("DELETE FROM {} WHERE seq = ANY (%s)").format(
                beside_parameters(_log(connection, table))
            ),
            [entries],
        )
