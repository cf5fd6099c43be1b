"""A brake for an application that writes faster than its rows can be followed.

Writers wait for a while, those that wait then go on, and so again: sessions that write one row
after another write a few in each while. It holds nobody for longer than that while, and ends by
itself if this process dies or forgets it.
"""

from __future__ import annotations

import contextlib

import psycopg
from psycopg import sql

from reembed.stores.postgres.client import Connection, connect
from reembed.stores.postgres.locks.hold import SHORT, WRITERS, result_of
from reembed.stores.postgres.schema.table import Table

HELD_SECONDS = 0.4
PAUSE_SECONDS = 0.02
"""How long writers wait at a time, and how long nobody does who comes new."""
MOST_SECONDS = 120
"""After which the brake ends by itself."""
SETTINGS = {
    "lock_timeout": f"{round(SHORT * 1000)}ms",
    "client_connection_check_interval": "500ms",
}
_BLOCK = """
DECLARE until timestamptz := clock_timestamp() + interval '{most} s';
BEGIN
  WHILE clock_timestamp() < until LOOP
    BEGIN
      LOCK TABLE {table} IN {mode} MODE;
      PERFORM pg_catalog.pg_sleep({held});
    EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
      NULL;
    END;
    COMMIT;
    PERFORM pg_catalog.pg_sleep({pause});
  END LOOP;
END
"""


class Brake:
    """Brakes the writers of a table from the moment it is made until it is released."""

    def __init__(self, url: str, table: Table) -> None:
        self._connection: Connection = connect(url)
        self._connection.execute(
            "SELECT set_config(s.name, value, false) FROM unnest(%s::text[], %s::text[]) s (name, "
            "value) JOIN pg_settings p USING (name)",
            [list(SETTINGS), list(SETTINGS.values())],
        )
        block = sql.SQL(_BLOCK).format(
            most=sql.SQL(str(MOST_SECONDS)), table=table.identifier, mode=sql.SQL(WRITERS),
            held=sql.Literal(HELD_SECONDS), pause=sql.Literal(PAUSE_SECONDS),
        )  # fmt: skip
        text = sql.SQL("DO {}").format(sql.Literal(block.as_string(self._connection)))
        self._connection.pgconn.send_query(text.as_bytes(self._connection))

    def release(self) -> None:
        """Let writers go on as they like."""
        with contextlib.suppress(psycopg.Error):
            result_of(self._connection, 0.0)
        self._connection.close()
