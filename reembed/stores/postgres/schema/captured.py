"""What a capture of writes consists of, and which of it is ours: known by owner and by shape.

Whoever may create in a schema can make a log or a function of the name that reembed will use, and
whoever may make triggers on a table a trigger. So nothing of such a name is used, replaced or
removed unless a role made it that could act as us anyway, or the owner of the table that it serves,
and unless it is as reembed makes it. A trigger has no owner: it is as much ours as what it calls.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, LiteralString

from psycopg import sql

from reembed.stores.postgres.client import Connection, fetch_all
from reembed.stores.postgres.schema.own import Look, Shape, look
from reembed.stores.postgres.schema.table import Table

TRIGGERS = {"zz_reembed_rows": 29, "zz_reembed_truncate": 32}
"""Name to `pg_trigger.tgtype`: after each row that is inserted, updated or deleted; after each
TRUNCATE. They fire last, since triggers of one event run by name."""
LOG = Shape(
    ("seq bigint not null default", "op text not null", "id text"), "which records were written to"
)
SEARCH_PATH = "pg_catalog, pg_temp"
BODY = """
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
END """


def _body_pattern() -> re.Pattern[str]:
    name = '"(?:[^"]|"")+"'
    groups = {"log": rf"(?P<log>{name}\.{name})", "id": f"(?P<id>{name})"}
    parts = []
    for part in re.split(r"(\{log\}|\{id\})", BODY):
        key = part.strip("{}")
        parts.append(groups.pop(key, f"(?P={key})") if part in ("{log}", "{id}") else part)
        if part not in ("{log}", "{id}"):
            parts[-1] = re.escape(part)
    return re.compile("".join(parts))


_BODY = _body_pattern()


def log_name(oid: int) -> str:
    """Of the log of the table with this oid."""
    return f"reembed_{oid}_log"


def function_name(oid: int) -> str:
    """Of the function that its triggers call."""
    return f"reembed_{oid}_capture"


_NUMBERED = re.compile(r"reembed_(\d+)_(?:capture|log)")


@dataclass(frozen=True)
class Function:
    """A function without arguments of a name that reembed gives.

    Attributes:
        ours: whether a role made it that may, as reembed makes it.
        log, id: the table that it writes to and the column that it logs, quoted, if it is ours.
    """

    oid: int
    schema: str
    name: str
    owner: str
    ours: bool
    log: str
    id: str

    @property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.name)

    @property
    def log_name(self) -> str:
        return self.name.replace("_capture", "_log")


@dataclass(frozen=True)
class Trigger:
    """A trigger of a name that reembed gives.

    Attributes:
        place: schema and name of its table.
        oid: of its table.
        always: whether it is as reembed makes it, and fires whoever writes.
        function: that it calls.
    """

    name: str
    place: tuple[str, str]
    oid: int
    always: bool
    function: Function

    @property
    def table(self) -> sql.Identifier:
        return sql.Identifier(*self.place)


_FUNCTION = """
p.oid, f.nspname, proname, pg_get_userbyid(proowner)::text,
  (pg_has_role(proowner, (SELECT oid FROM pg_roles WHERE rolname = current_user), 'MEMBER')
    OR proowner IS NOT DISTINCT FROM (SELECT relowner FROM pg_class s WHERE s.oid = {of}))
  AND prosecdef AND pronargs = 0 AND prorettype = 'trigger'::regtype
  AND prolang = (SELECT oid FROM pg_language WHERE lanname = 'plpgsql')
  AND coalesce({path} = ANY (proconfig), false),
  prosrc
"""


def _columns(of: LiteralString) -> sql.Composed:
    path = sql.Literal(f"search_path={SEARCH_PATH}")
    return sql.SQL(_FUNCTION).format(of=sql.SQL(of), path=path)


def _function(row: Sequence[Any]) -> Function:
    oid, schema, name, owner, fits, body = row
    found = _BODY.fullmatch(body)
    ours = bool(fits and found and _NUMBERED.fullmatch(name))
    log, id = (found["log"], found["id"]) if found else ("", "")
    return Function(oid, schema, name, owner, ours, log, id)


def triggers_of(connection: Connection, oids: list[int] | None = None) -> list[Trigger]:
    """Those on some tables, or on all, that have the name of one of ours, whoever made them."""
    rows = fetch_all(
        connection,
        sql.SQL(
            "SELECT tgname, n.nspname, relname, c.oid, tgenabled = 'A' AND tgqual IS NULL AND "
            "tgnargs = 0 AND tgattr = ''::int2vector AND NOT tgdeferrable, tgtype, {} FROM "
            "pg_trigger t JOIN pg_class c ON c.oid = tgrelid JOIN pg_namespace n ON n.oid = "
            "relnamespace JOIN pg_proc p ON p.oid = tgfoid JOIN pg_namespace f ON f.oid = "
            "pronamespace WHERE tgname = ANY (%(names)s) AND NOT tgisinternal AND "
            "(%(oids)s::oid[] IS NULL OR tgrelid = ANY (%(oids)s::oid[])) ORDER BY 2, 3, 1"
        ).format(_columns("tgrelid")),
        {"names": list(TRIGGERS), "oids": oids},
    )
    return [
        Trigger(name, (schema, table), oid, always and kind == TRIGGERS[name], _function(of))
        for name, schema, table, oid, always, kind, *of in rows
    ]


def functions_named(connection: Connection, oids: Sequence[int], of: int) -> list[Function]:
    """Functions of the names of captures of tables with these oids, in any schema, whoever made
    them.

    Args:
        of: oid of the table whose owner may have made them.
    """
    rows = fetch_all(
        connection,
        sql.SQL(
            "SELECT {} FROM pg_proc p JOIN pg_namespace f ON f.oid = pronamespace WHERE proname = "
            "ANY (%(names)s) AND pronargs = 0"
        ).format(_columns("%(of)s")),
        {"names": [function_name(oid) for oid in oids], "of": of},
    )
    return [_function(row) for row in rows]


def orphans(connection: Connection) -> tuple[list[Function], list[tuple[str, str]]]:
    """Functions of ours that no trigger calls, and logs of ours to which no function writes, by
    schema and name."""
    served = "(SELECT s.oid FROM pg_class s WHERE s.oid::text = split_part(proname, '_', 2))"
    functions = fetch_all(
        connection,
        sql.SQL(
            "SELECT {} FROM pg_proc p JOIN pg_namespace f ON f.oid = pronamespace WHERE proname ~ "
            "'^reembed_[0-9]+_capture$' AND NOT EXISTS (SELECT FROM pg_trigger WHERE tgfoid = "
            "p.oid) ORDER BY 2, 3"
        ).format(_columns(served)),
    )
    logs = fetch_all(
        connection,
        "SELECT nspname, relname, (SELECT s.oid FROM pg_class s WHERE s.oid::text = "
        "split_part(c.relname, '_', 2)) FROM pg_class c JOIN pg_namespace n ON n.oid = "
        "relnamespace WHERE relname ~ '^reembed_[0-9]+_log$' AND NOT EXISTS (SELECT FROM "
        "pg_trigger t JOIN pg_proc p ON p.oid = tgfoid WHERE pronamespace = relnamespace AND "
        "proname = replace(relname, '_log', '_capture')) ORDER BY 1, 2",
    )
    own = [one for row in functions if (one := _function(row)).ours]
    return own, [
        (schema, name)
        for schema, name, of in logs
        if (found := look(connection, schema, name, LOG, of)) and found.trusted and found.is_as_made
    ]


def is_called(connection: Connection, function: Function) -> bool:
    """Whether a trigger calls it."""
    found = fetch_all(
        connection, "SELECT 1 FROM pg_trigger WHERE tgfoid = %s LIMIT 1", [function.oid]
    )
    return bool(found)


def logs_named(connection: Connection, oids: Sequence[int], of: int) -> list[tuple[str, str, Look]]:
    """Schema, name and look of everything that has the name of a log of these tables."""
    rows = fetch_all(
        connection,
        "SELECT nspname, relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE "
        "relname = ANY (%s) ORDER BY 1, 2",
        [[log_name(oid) for oid in oids]],
    )
    looks = [(schema, name, look(connection, schema, name, LOG, of)) for schema, name in rows]
    return [(schema, name, found) for schema, name, found in looks if found is not None]


@dataclass(frozen=True)
class Parts:
    """What of a capture of one table is there, and ours.

    Attributes:
        logs: schema and name of each.
    """

    triggers: list[Trigger]
    functions: list[Function]
    logs: list[tuple[str, str]]

    def __bool__(self) -> bool:
        return bool(self.triggers or self.functions or self.logs)


def own_parts(connection: Connection, table: Table) -> Parts:
    """All of a capture, of half of one, or of one that was copied with its table."""
    triggers = [one for one in triggers_of(connection, [table.oid]) if one.function.ours]
    numbers = [_NUMBERED.fullmatch(one.function.name) for one in triggers]
    oids = list({table.oid, *(int(number[1]) for number in numbers if number)})
    functions = [one for one in functions_named(connection, oids, table.oid) if one.ours]
    logs = [
        (schema, name)
        for schema, name, found in logs_named(connection, oids, table.oid)
        if found.trusted and found.is_as_made
    ]
    return Parts(triggers, functions, logs)


def installed(connection: Connection, table: Table) -> tuple[str, str] | None:
    """Schema and name of the log of a capture that is whole, at work and ours; else None.

    Args:
        table: if it has no id, for its columns were not read, the capture may log any column.
    """
    triggers = triggers_of(connection, [table.oid])
    functions = {one.function for one in triggers}
    if {one.name for one in triggers if one.always} != set(TRIGGERS) or len(functions) != 1:
        return None
    (function,) = functions
    place = (function.schema, log_name(table.oid))
    if not (
        function.ours
        and function.name == function_name(table.oid)
        and function.log == sql.Identifier(*place).as_string(None)
        and (not table.id or function.id == sql.Identifier(table.id).as_string(None))
    ):
        return None
    found = look(connection, *place, LOG, table.oid)
    return place if found is not None and found.trusted and not found.wrong else None


def lookalikes(connection: Connection, table: Table, schema: str) -> list[str]:
    """What stands where a capture of ours would be made, and is none of ours: what each is, whose,
    and the statement that removes it.

    Args:
        schema: where log and function would be.
    """
    told = []
    for one in triggers_of(connection, [table.oid]):
        if not one.function.ours:
            called = f"{one.function.schema}.{one.function.name}"
            told.append(
                f"the trigger {one.name} on {table.label}, which calls {called} of the role "
                f"{one.function.owner!r} (DROP TRIGGER {one.name} ON "
                f"{one.table.as_string(None)})"
            )
    for one_function in functions_named(connection, [table.oid], table.oid):
        if one_function.schema == schema and not one_function.ours:
            name = one_function.identifier.as_string(None)
            told.append(
                f"the function {schema}.{one_function.name} of the role {one_function.owner!r} "
                f"(DROP FUNCTION {name}())"
            )
    for where, name, found in logs_named(connection, [table.oid], table.oid):
        if where == schema and not (found.trusted and found.is_as_made):
            told.append(
                f"the {found.what} {schema}.{name} of the role {found.owner!r} (DROP "
                f"{found.what.upper()} {sql.Identifier(schema, name).as_string(None)})"
            )
    types = fetch_all(
        connection,
        "SELECT pg_get_userbyid(typowner)::text, typtype = 'd' FROM pg_type WHERE typname = %s AND "
        "typnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %s) AND typrelid = 0",
        [log_name(table.oid), schema],
    )
    for owner, is_domain in types:
        kind, name = "domain" if is_domain else "type", log_name(table.oid)
        told.append(
            f"the {kind} {schema}.{name} of the role {owner!r} (DROP {kind.upper()} "
            f"{sql.Identifier(schema, name).as_string(None)})"
        )
    return told
