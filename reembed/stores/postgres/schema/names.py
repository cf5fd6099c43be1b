"""Names of tables: found, made, and made to fit.

A collection's name is `schema.table`, or a table's as the role's search path finds it, taken
literally: capitals, blanks and dots are the name's own, and nothing is quoted.
"""

from __future__ import annotations

import difflib
import hashlib
from typing import TypeAlias

from reembed.errors import CollectionNotFoundError, PreflightError
from reembed.stores.postgres.client import Connection, fetch_all, fetch_one
from reembed.stores.postgres.search_path import path_of
from reembed.stores.values import some_of

Found: TypeAlias = tuple[int, str, str]
"""Oid, schema and name of a table."""
ENTITIES = "_entities"
"""What mem0 calls the second table of a unit, after the first one's name."""
IDENTIFIER_BYTES = 63
"""Where Postgres cuts a name."""


def find_table(connection: Connection, name: str) -> Found | None:
    """Oid, schema and name of a table: `schema.table`, or as the role's search path finds it."""
    parts = name.split(".")
    endings = [".".join(parts[place:]) for place in range(len(parts))]
    path = list(path_of(connection).role)
    return fetch_one(
        connection,
        "SELECT c.oid, nspname, relname FROM pg_class c JOIN pg_namespace n ON n.oid = "
        "relnamespace WHERE relname = ANY (%s) AND relkind IN ('r', 'p', 'v', 'm', 'f') AND "
        "(nspname || '.' || relname = %s OR (relname = %s AND nspname = ANY (%s))) "
        "ORDER BY relname = %s, CASE WHEN relname = %s THEN array_position(%s::text[], "
        "nspname::text) ELSE length(nspname) END LIMIT 1",
        [endings, name, name, path, name, name, path],
    )


def place_for(connection: Connection, name: str, schema: str | None = None) -> tuple[str, str]:
    """Schema and name of a table that is to be made or renamed.

    Args:
        schema: that it must be in, since it is to exchange names with a table there.

    Raises:
        PreflightError: the name says another schema.
    """
    parts = name.split(".")
    starts = [".".join(parts[:place]) for place in range(1, len(parts))]
    rows = fetch_all(
        connection, "SELECT nspname FROM pg_namespace WHERE nspname = ANY (%s)", [starts]
    )
    named = sorted((row[0] for row in rows), key=len)
    if schema is None or (named and schema not in named):
        if schema is not None:
            raise PreflightError(
                f"{name!r} is in the schema {named[0]!r}, and the table it belongs to in "
                f"{schema!r}",
                "Tables that exchange their names are in one schema: name one there.",
            )
        schema = named[0] if named else next(iter(path_of(connection).role), None)
    if schema is None:
        raise PreflightError(
            f"no schema of the role's search path exists, so {name!r} cannot be made in one",
            "Name the table with its schema: schema.table.",
        )
    return schema, name.removeprefix(f"{schema}.") if schema in named else name


def fitted(name: str) -> str:
    """The name, or one that is short enough for Postgres, with a hash of what was cut out of its
    middle; it leaves room for `_entities`."""
    room = IDENTIFIER_BYTES - len(ENTITIES)
    if len(name.encode()) <= room:
        return name
    head, mark, ending = name.rpartition("__")
    digest = f"-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
    if len(ending.encode()) > room - len(digest) - 12:  # then the ending is long, too
        head, mark, ending = name, "", ""
    room -= len(f"{digest}{mark}{ending}".encode())
    return head.encode()[:room].decode(errors="ignore") + digest + mark + ending


def missing_table(name: str, url: str, known: list[str]) -> CollectionNotFoundError:
    """The refusal of a name that is no table, naming those that are."""
    elsewhere = [one for one in known if one.rpartition(".")[2] == name]
    close = elsewhere or difflib.get_close_matches(name, known, n=1)
    return CollectionNotFoundError(
        f"{url} has no table {name!r}; tables with vectors: {some_of(known)}",
        f"Did you mean {close[0]!r}?"
        if close
        else "Name one with source.collection, as schema.table where this role's search_path does "
        "not lead to it. If it is missing here, see that this is the right database.",
    )


def check_identifier(table: str) -> None:
    """Raise PreflightError, saying why, where Postgres would refuse or cut a table's name."""
    size = len(table.encode())
    if not table or "/" in table or table != table.strip() or "\x00" in table:
        raise PreflightError(
            f"{table[:80]!r} is not a usable table name",
            "Use letters, digits and underscores, as schema.table where need be.",
        )
    if size > IDENTIFIER_BYTES:
        raise PreflightError(
            f"{table[:80]!r} is {size} bytes long, and Postgres cuts names at {IDENTIFIER_BYTES}",
            "Choose a shorter one.",
        )


def check_free(connection: Connection, schema: str, table: str) -> None:
    """Raise PreflightError where something that is no table has a name, so that no table can have
    it: an index, a sequence, a type (a table's rows are a type of its name)."""
    row = fetch_one(
        connection,
        "SELECT CASE relkind WHEN 'S' THEN 'a sequence' WHEN 'c' THEN 'a type' ELSE 'an index' END "
        "FROM pg_class WHERE relname = %(name)s AND relnamespace = (SELECT oid FROM pg_namespace "
        "WHERE nspname = %(schema)s) AND relkind IN ('S', 'i', 'I', 'c') UNION ALL SELECT 'a type' "
        "FROM pg_type t WHERE typname = %(name)s AND typnamespace = (SELECT oid FROM pg_namespace "
        "WHERE nspname = %(schema)s) AND typrelid = 0 AND NOT EXISTS (SELECT FROM pg_type e WHERE "
        "e.typarray = t.oid) LIMIT 1",  # of arrays Postgres makes up another name
        {"name": table, "schema": schema},
    )
    if row is not None:
        raise PreflightError(
            f"no table can have the name {schema}.{table}: {row[0]} has it",
            "Choose another name, or rename what has it.",
        )
