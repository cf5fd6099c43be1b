"""The crash campaign's stage with a real Postgres, whose database is copied with the folder."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

from tests.campaigns.soak import pg_scene, processes, scene
from tests.campaigns.soak.processes import CRASHED, STEPS, Kill, apart, command
from tests.campaigns.soak.scene import Look, Step
from tests.campaigns.soak.stage import DRAWS, WHOLE_STORY, Outcome, Stage
from tests.support.servers.postgres_server import PostgresServer

UNFLUSHED = {"wal_writer_delay": "10s", "wal_buffers": "64MB"}
"""Settings of a server that loses in a crash what nobody has waited for."""
CLEAR = (0, 3, 6, 7)
"""How a command may end whose server has crashed: done, or to be given again."""
FIRST_OID = 100_000
"""Of databases that are copied with their oid, which ids of collections are made of."""


class PostgresStage(Stage):
    """See `Stage`. `kind` is the way the table's name takes: `rename` or `columns`.

    Args:
        crashing: whether the server crashes, and not the command, which goes on if it can.
    """

    def __init__(
        self, work: Path, kind: str, server: PostgresServer, base_url: str, crashing: bool = False
    ) -> None:  # fmt: skip
        super().__init__(work, kind, False, base_url)
        self._crashing = crashing
        self._steps: dict[str, int] = {}
        processes.CRASH[:] = [server.crash]
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

    def _kill(self, step: Step, chance: random.Random) -> Kill:
        if not self._crashing:
            return super()._kill(step, chance)
        if step.name not in self._steps:  # counted once
            self.restore(f"before-{step.name}")
            ended = command(self.folder, *step.arguments, kill=Kill("step", 0))
            assert ended.code == self.told.codes[step.name], ended.err
            self._steps[step.name] = int((self.folder / STEPS).read_text())
        return Kill("server", chance.randint(1, self._steps[step.name]))

    def _try(self, step: Step, kill: Kill | None, outcome: Outcome, chance: random.Random) -> None:
        if kill is None or kill.place != "server":
            super()._try(step, kill, outcome, chance)
            return
        for _ in range(DRAWS):
            self.restore(f"before-{step.name}")
            before = processes.served()
            ended = command(self.folder, *step.arguments, kill=kill)
            if (self.folder / CRASHED).exists():
                break
            kill = Kill(kill.place, max(1, kill.at * 0.9 // 1))  # it was done sooner
        else:
            return
        (self.folder / CRASHED).unlink()
        outcome.what = f"{kill}, exit code {ended.code}"
        if ended.code not in CLEAR:
            outcome.problems.append(f"exit code {ended.code}: {ended.out[-900:]}")
        outcome.kills += 1
        self._interrupted(outcome)
        self._again(step, before, outcome)
        if outcome.seed % WHOLE_STORY == 0 and not outcome.problems:
            self._go_on(step, outcome)

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
                sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY").format(
                    sql.Identifier(name), sql.Identifier(template)
                )
                + (sql.SQL(" OID {}").format(sql.Literal(oid)) if oid else sql.SQL(""))
            )
