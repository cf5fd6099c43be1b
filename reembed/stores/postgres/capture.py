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

import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import LiteralString

from psycopg import errors, sql

from reembed.errors import PreflightError
from reembed.stores.postgres.client import (
    SETTINGS,
    Connection,
    beside_parameters,
    fetch_all,
    fetch_one,
)
from reembed.stores.postgres.locks.hold import patiently
from reembed.stores.postgres.schema.access import close_function, close_relation
from reembed.stores.postgres.schema.captured import (
    BODY,
    SEARCH_PATH,
    TRIGGERS,
    function_name,
    installed,
    is_called,
    log_name,
    lookalikes,
    own_parts,
    triggers_of,
)
from reembed.stores.postgres.schema.notes import identity
from reembed.stores.postgres.schema.own import may_own
from reembed.stores.postgres.schema.replication import taking_in
from reembed.stores.postgres.schema.table import Table

TRUNCATED = "t"
ROWS, TRUNCATE = TRIGGERS

_WRITTEN_AS_WE_READ = sql.SQL(" ").join(
    sql.SQL("SET {} = {}").format(sql.Identifier(name), sql.Literal(SETTINGS[name]))
    for name in ("DateStyle", "IntervalStyle", "TimeZone", "bytea_output", "extra_float_digits")
)
"""So that an id is the same text, whatever the writer's session has set."""

_FUNCTION = (
    "CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET "
    "search_path = " + SEARCH_PATH + " {settings} AS $reembed$" + BODY + "$reembed$"
)
_LOG = "CREATE TABLE {log} (seq bigserial PRIMARY KEY, op text NOT NULL, id text)"


@dataclass(frozen=True)
class Touched:
    """What a queue holds at one moment.

    Attributes:
        log: by the queue's own number, in which row of a table was written to; None where the table
            was emptied, so that any may be gone.
        prefix: which ids of the table's rows have.
        lost: whether the queue is not ours any more, so that nothing is known.
    """

    log: Mapping[int, str | None]
    prefix: str = ""
    lost: bool = False

    @property
    def ids(self) -> list[str]:
        """Of rows that were written to, without repetition."""
        return [self.prefix + id for id in dict.fromkeys(self.log.values()) if id is not None]

    def without(self, entries: Iterable[int]) -> Touched:
        """What it holds besides these entries."""
        left = {number: self.log[number] for number in self.log.keys() - set(entries)}
        return Touched(dict(sorted(left.items())), self.prefix, self.lost)

    @property
    def truncated(self) -> bool:
        """Whether any row may be gone."""
        return self.lost or None in self.log.values()


def mark(connection: Connection, table: Table) -> str | None:
    """The capture's own mark, new with each installation; None where the table is not captured,
    or a part of it is off or is not ours, or what is there was copied from another table or
    database."""
    place = installed(connection, table)
    if place is None:
        return None
    found = fetch_one(
        connection,
        "SELECT obj_description(c.oid, 'pg_class') FROM pg_class c JOIN pg_namespace n ON n.oid = "
        "relnamespace WHERE nspname = %s AND relname = %s",
        list(place),
    )
    whose = f" of {identity(connection, table.oid)}"
    text = found[0] if found else None
    return text if text and text.startswith("capture ") and text.endswith(whose) else None


def crash(connection: Connection) -> str:
    """What changes when the server crashes, or a standby takes its place: the end of what was
    committed may be gone then, from the tables and from the logs alike (`synchronous_commit = off`,
    or a standby that was behind). Postgres begins its own statistics anew."""
    row = fetch_one(
        connection,
        "SELECT 'since ' || extract(epoch FROM stats_reset) FROM pg_catalog.pg_stat_bgwriter",
    )
    return str(row[0]) if row and row[0] else "since ever"


def allowed(connection: Connection, table: Table, schema: str | None = None) -> bool:
    """Whether the role may capture a table's writes as the table's owner, and no subscriber stops
    at the log.

    Args:
        schema: where log and function are made; default: the table's.
    """
    schema = schema or table.schema
    row = fetch_one(
        connection,
        "SELECT has_table_privilege(%s::oid, 'TRIGGER') AND (SELECT "
        "has_schema_privilege(oid, 'CREATE') FROM pg_namespace WHERE nspname = %s) "
        "AND pg_has_role(relowner, 'USAGE'), pg_get_userbyid(relowner) = current_user FROM "
        "pg_class WHERE oid = %s",
        [table.oid, schema, table.oid],
    )
    if not row or not row[0] or taking_in(connection, schema):
        return False
    return bool(row[1]) or may_own(connection, table.oid, schema) is not None


def in_the_way(
    connection: Connection, table: Table, schema: str | None = None
) -> PreflightError | None:
    """What is to be said of what another role has put where a capture would be; None where there is
    nothing.

    Args:
        schema: as for `allowed`.
    """
    found = lookalikes(connection, table, schema or table.schema)
    if not found:
        return None
    return PreflightError(
        f"writes to {table.label} cannot be logged, because there is {' and '.join(found)}, which "
        "is not as reembed makes it or belongs to another role",
        "Look at it. If it is nobody's, drop it as its owner or as a superuser with the "
        "statement in brackets. To prevent this, revoke that role's right to create in the "
        "schema, or to make triggers on the table.",
    )


def install(connection: Connection, table: Table, schema: str | None = None) -> str | None:
    """Capture a table's writes from now on. Returns the mark, None where it is not `allowed`.

    It waits for the transactions that write to the table now, and what they wrote is in any
    snapshot taken after.

    Raises:
        LockedError: they do not end.
        PreflightError: another role has put something where the capture would be.
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
    if (taken := in_the_way(connection, table, schema)) is not None:
        raise taken
    new = f"capture {secrets.token_hex(8)} of {identity(connection, table.oid)}"
    names = {
        "log": sql.Identifier(schema, log_name(table.oid)),
        "function": sql.Identifier(schema, function_name(table.oid)),
        "id": sql.Identifier(table.id), "table": table.identifier,
        "rows": sql.Identifier(ROWS), "truncate": sql.Identifier(TRUNCATE),
        "settings": _WRITTEN_AS_WE_READ,
    }  # fmt: skip

    def make() -> None:
        for statement in (
            _LOG,
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
            [schema, log_name(table.oid)],
        )
        assert made is not None, "it has just been made"
        close_relation(connection, int(made[0]))
        close_function(connection, schema, function_name(table.oid))
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
    """Remove every trace of a capture, of half of one, or of one that was copied with its table;
    nothing that another role has made.

    Raises:
        LockedError: transactions that use the table do not end.
    """
    parts = own_parts(connection, table)
    if not parts:
        return

    def undo() -> None:
        for trigger in parts.triggers:
            connection.execute(
                sql.SQL("DROP TRIGGER IF EXISTS {} ON {}").format(
                    sql.Identifier(trigger.name), trigger.table
                )
            )
        kept = set()
        for function in parts.functions:
            if is_called(connection, function):
                kept.add((function.schema, function.log_name))  # another table's
                continue
            connection.execute(sql.SQL("DROP FUNCTION IF EXISTS {}()").format(function.identifier))
        for place in parts.logs:
            if place not in kept:
                connection.execute(
                    sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(*place))
                )

    patiently(connection, [table], undo)


def check_removed(connection: Connection, table: Table) -> None:
    """Raise PreflightError where triggers of our name stay, which log for ever: their function
    belongs to another role than the table by now."""
    left = [one for one in triggers_of(connection, [table.oid]) if not one.function.ours]
    if left:
        raise PreflightError(
            f"{table.label} has {' and '.join(lookalikes(connection, table, table.schema))}: "
            "reembed removes nothing of another role",
            "Look at it. If a run made it and the table has got another owner since, it logs every "
            "write: remove it, and give the same command again.",
        )


@contextmanager
def _locked_log(
    connection: Connection, table: Table, mode: LiteralString
) -> Iterator[sql.Identifier | None]:
    """The log of a table, while nobody can exchange it or put a trigger on it; None where there is
    none of ours by now."""
    with connection.transaction():
        place = installed(connection, table)
        log = sql.Identifier(*place) if place else None
        if log is not None:
            connection.execute(sql.SQL("LOCK TABLE ONLY {} IN " + mode + " MODE").format(log))
            log = log if installed(connection, table) == place else None
        yield log


def length(connection: Connection, table: Table) -> int | None:
    """How many entries the queue holds; None where the table is not captured."""
    if mark(connection, table) is None:
        return None
    with _locked_log(connection, table, "ACCESS SHARE") as log:
        if log is None:
            return None
        row = fetch_one(connection, sql.SQL("SELECT count(*) FROM {}").format(log))
    return int(row[0]) if row else None


def touched(connection: Connection, table: Table) -> Touched:
    """What the queue holds now; where it is not ours any more, that any row may be gone."""
    with _locked_log(connection, table, "ACCESS SHARE") as log:
        if log is None:
            return Touched({}, lost=True)
        rows = fetch_all(connection, sql.SQL("SELECT seq, op, id FROM {} ORDER BY seq").format(log))
    log_entries = {seq: None if op == TRUNCATED else id for seq, op, id in rows}
    return Touched(log_entries, table.prefix)


def forget(connection: Connection, table: Table, entries: list[int]) -> None:
    """Delete exactly these entries."""
    if not entries:
        return
    with _locked_log(connection, table, "ROW EXCLUSIVE") as log:
        if log is not None:
            connection.execute(
                sql.SQL("DELETE FROM {} WHERE seq = ANY (%s)").format(beside_parameters(log)),
                [entries],
            )
