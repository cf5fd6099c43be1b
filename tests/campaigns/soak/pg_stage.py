"""The crash campaign's stage with a real Postgres, whose database is copied with the folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

from tests.campaigns.soak import pg_scene, scene
from tests.campaigns.soak.processes import apart
from tests.campaigns.soak.scene import Look, Step
from tests.campaigns.soak.stage import Stage
from tests.support.servers.postgres_server import PostgresServer

FIRST_OID = 100_000
"""Of databases that are copied with their oid, which ids of collections are made of."""


class PostgresStage(Stage):
    """See `Stage`. `kind` is the way the table's name takes: `rename` or `columns`."""

    def __init__(self, work: Path, kind: str, server: PostgresServer, base_url: str) -> None:
        super().__init__(work, kind, False, base_url)
        self._server = server
        self._database = f"stage_{kind}"
        self._oid = FIRST_OID + len(kind)
        self.url = server.url(self._database)

    @contextmanager
    def store(self) -> Iterator[None]:
        """It is up all the time, and survives."""
        yield

    def build(self) -> None:
        self._copy(self._database, "with_vector", self._oid)
        apart(pg_scene.build, self.url, self.base_url, self.kind)
        scene.write_manifest(self.folder, self.url, self.base_url, "transaction")

    def write(self, step: Step) -> None:
        apart(pg_scene.write, step, self.url, self.base_url)

    def look(self) -> Look:
        return apart(pg_scene.look, self.folder, self.url)

    def keep(self, name: str) -> None:
        super().keep(name)
        self._copy(f"{self._database} {quote(name)}", self._database)

    def restore(self, name: str) -> None:
        super().restore(name)
        self._copy(self._database, f"{self._database} {quote(name)}", self._oid)

    def _copy(self, name: str, template: str, oid: int | None = None) -> None:
        self._server.drop_database(name)
        with psycopg.connect(self._server.url(), autocommit=True) as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                    sql.Identifier(name), sql.Identifier(template)
                )
                + (sql.SQL(" OID {}").format(sql.Literal(oid)) if oid else sql.SQL(""))
            )
