"""Several tables that move together, killed at random: the same command again finishes what was
begun, for all of them, and an application never notices.

    python -m tests.campaigns.soak.pg_many --tables 6 --kills 60 --seed 1

By turns a table is one that exchanges its name and one that a view keeps in its place. They go
through one manifest: run, swap, rollback, swap again, clean. Every command is killed again and
again (before or in the middle of a journal line, at an fsync, before a statement to Postgres), and
then left alone. After each kill an application, which is plain psycopg, looks at all tables in one
snapshot: they hold what it has written, all vectors are of one model, and each is of its row's
text. Then it writes to one of them. After the last command nothing of reembed's is left.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psycopg
from psycopg import sql

from tests.campaigns.soak.many import SECONDS, STEPS
from tests.support import crash
from tests.support.manifests import write_group_manifest
from tests.support.pg_docs import NEW, OLD, literal, traces
from tests.support.servers.postgres_server import postgres_server
from tests.support.texts import sentence, vector_of

PLACES = ("journal", "torn", "fsync", "psycopg:Cursor.execute", "psycopg:Cursor.execute")
STATEMENTS, LINES = 150, 8
"""Of a command for each table, about: kills are spread over so many."""
MODELS = {OLD: "old", NEW: "new"}


@dataclass
class Application:
    """What it has written, and what it found otherwise.

    Attributes:
        rows: by table, id to text.
        problems: what was not as it should be.
    """

    url: str
    tables: list[str]
    rows: dict[str, dict[int, str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    wrote: int = 0

    def build(self) -> None:
        with psycopg.connect(self.url) as connection:
            for number, name in enumerate(self.tables):
                self.rows[name] = {id: sentence(10 * number + id) for id in range(5 + number)}
                connection.execute(
                    f"CREATE TABLE {name} (id bigint PRIMARY KEY, content text NOT NULL, embedding "
                    f"vector({OLD}) NOT NULL)"
                )
                for id, text in self.rows[name].items():
                    self._put(connection, name, id, text, "old")
                connection.execute(
                    f"CREATE INDEX ON {name} USING hnsw (embedding vector_cosine_ops)"
                )
                if number % 2:
                    connection.execute(f"CREATE VIEW {name}_read AS SELECT id, content FROM {name}")

    def look(self, when: str) -> str:
        """Hold all tables against what was written, in one snapshot. Returns the model of all."""
        found = dict[str, dict[int, tuple[str, str]]]()
        with psycopg.connect(self.url) as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            for name in self.tables:
                rows = connection.execute(
                    sql.SQL("SELECT id, content, embedding::text FROM {}").format(
                        sql.Identifier(name)
                    )
                ).fetchall()
                found[name] = {id: (text, vector) for id, text, vector in rows}
        vectors = [vector for rows in found.values() for _, vector in rows.values()]
        widths = {vector.count(",") + 1 if vector else 0 for vector in vectors}
        if len(widths) != 1 or not widths <= MODELS.keys():
            self.problems.append(f"{when}: vectors of {sorted(widths)} dimensions")
            return ""
        model = MODELS[widths.pop()]
        for name, want in self.rows.items():
            told = self._wrong(found[name], want, model)
            self.problems += [f"{when}: {name}: {told}"] if told else []
        return model

    @staticmethod
    def _wrong(rows: dict[int, tuple[str, str]], want: dict[int, str], model: str) -> str:
        texts = {id: text for id, (text, _) in rows.items()}
        if texts != want:
            lost, extra = sorted(want.keys() - texts.keys()), sorted(texts.keys() - want.keys())
            stale = [id for id in want.keys() & texts.keys() if want[id] != texts[id]]
            return f"lost {lost}, extra {extra}, stale {stale}"
        for id, (text, vector) in rows.items():
            given = np.fromstring(vector.strip("[]"), np.float32, sep=",")
            if np.abs(given - vector_of(model, text)).max() > 1e-4:
                return f"the vector of {id} is not of its text"
        return ""

    def write(self, model: str, chance: random.Random) -> None:
        """Add a row to a table, or give one another text, or delete one."""
        name = chance.choice(self.tables)
        rows, verb = self.rows[name], chance.choice(["add", "text", "delete"])
        self.wrote += 1
        id = 1_000 + self.wrote if verb == "add" or len(rows) < 4 else chance.choice(sorted(rows))
        with psycopg.connect(self.url) as connection:
            if verb == "delete" and id in rows:
                connection.execute(f"DELETE FROM {name} WHERE id = %s", [id])
                del rows[id]
                return
            rows[id] = f"text {self.wrote} of the application"
            self._put(connection, name, id, rows[id], model)

    @staticmethod
    def _put(
        connection: psycopg.Connection, name: str, id: int, text: str, model: str
    ) -> None:  # fmt: skip
        connection.execute(
            f"INSERT INTO {name} VALUES (%s, %s, %s) ON CONFLICT (id) DO UPDATE SET content = "
            "excluded.content, embedding = excluded.embedding",
            [id, text, literal(model, text)],
        )


def finish(
    application: Application, path: Path, step: str, kills: int, chance: random.Random
) -> int:  # fmt: skip
    """Give a command until it is through, killing it up to `kills` times. Returns how often it
    was killed."""
    done, before = 0, application.look(f"before {step}")
    after = "new" if step in ("swap", "clean") else "old"
    while True:
        place = chance.choice(PLACES) if done < kills else ""
        most = (STATEMENTS if ":" in place else LINES) * len(application.tables)
        at = round(math.exp(chance.uniform(0, math.log(most))))
        code = crash.work(path, f"{step}()", place, at, seconds=SECONDS)
        if code != -9:
            break
        done += 1
        model = application.look(f"{step} killed at {place} {at}")
        if model not in (before, after):
            application.problems.append(f"{step} killed at {place} {at}: served by {model!r}")
            return done
        application.write(model, chance)
    if code:
        told = crash.outcome(path)
        application.problems.append(f"{step} ended with {code}, last killed at {place}: {told}")
    if application.look(f"after {step}") != after:
        application.problems.append(f"after {step}: not the model {after!r}")
    return done


def campaign(url: str, folder: Path, tables: int, kills: int, seed: int) -> tuple[int, list[str]]:
    """One story. Returns how often it was killed, and what was not as it should be."""
    chance, count = random.Random(seed), 0
    application = Application(url, [f"table_{number}" for number in range(tables)])
    application.build()
    path = write_group_manifest(folder, url, "table_?", swap__keep_old="0d")
    for step in STEPS:
        count += finish(application, path, step, -(-kills // len(STEPS)), chance)
        print(f"{step}: {count} kills, {len(application.problems)} problems", file=sys.stderr)
        if application.problems:
            return count, application.problems
    application.problems += [f"left behind: {what}" for what in traces(url)]
    return count, application.problems


def main() -> int:
    """Tell the story, and fail if something was not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--tables", type=int, default=6, help="at most 10")
    parser.add_argument("--kills", type=int, default=60, help="of all commands together")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with ExitStack() as stack:
        url = stack.enter_context(stack.enter_context(postgres_server()).database())
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="reembed-pg-many-"))
        kills, problems = campaign(url, Path(folder), given.tables, given.kills, given.seed)
    for problem in problems[:20]:
        print(f"FAILED: {problem}")
    print(f"{given.tables} tables, {kills} kills, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
