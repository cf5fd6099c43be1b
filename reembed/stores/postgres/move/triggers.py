"""A table's triggers, off while vectors are copied, which is no write of the application's."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import sql

from reembed.stores.postgres.client import Connection, fetch_all
from reembed.stores.postgres.schema.table import Table

INSERT_BIT, UPDATE_BIT = 4, 16
"""Of `pg_trigger.tgtype`: what a trigger fires for."""


def switch_off(connection: Connection, table: Table, event: int) -> list[tuple[str, str]]:
    """Switch off those of the table's triggers that fire for an event, in this transaction that
    holds its writers. Returns what was on, and how."""
    connection.execute("SET CONSTRAINTS ALL IMMEDIATE")  # with checks to come it is not altered
    rows = fetch_all(
        connection,
        "SELECT tgname, tgenabled::text FROM pg_trigger WHERE tgrelid = %s AND NOT tgisinternal "
        "AND tgenabled <> 'D' AND tgtype & %s <> 0",
        [table.oid, event],
    )
    for name, _ in rows:
        _set_trigger(connection, table, name, "D")
    return [(name, state) for name, state in rows]


def switch_on(connection: Connection, table: Table, triggers: Sequence[tuple[str, str]]) -> None:
    """Switch triggers on again, each as it was."""
    if triggers:
        connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
    for name, state in triggers:
        _set_trigger(connection, table, name, state)


def _set_trigger(connection: Connection, table: Table, name: str, state: str) -> None:
    verb = {"O": "ENABLE", "A": "ENABLE ALWAYS", "R": "ENABLE REPLICA", "D": "DISABLE"}[state]
    connection.execute(
        sql.SQL("ALTER TABLE {} {} TRIGGER {}").format(
            table.identifier, sql.SQL(verb), sql.Identifier(name)
        )
    )  # fmt: skip
