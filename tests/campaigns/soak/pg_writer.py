"""Applications at work on a table in Postgres: some write, and note what they have written in the
same transaction; some read, and hold what they see against the notes."""

from __future__ import annotations

import contextlib
import json
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import psycopg

from tests.support.pg_docs import App, literal

WRITERS = 3
RECORDS = 300
ROLLED_BACK, LATE = 0.15, 0.3
"""Of the transactions, how many are rolled back, and how many stay open for LATE_SECONDS."""
LATE_SECONDS = (0.05, 0.5)
LEDGER = (
    "CREATE TABLE ledger AS SELECT id, content, meta FROM docs",
    "ALTER TABLE ledger ADD PRIMARY KEY (id)",
)
DIFFERENT = """
SELECT count(*) FILTER (WHERE d.id IS NULL), count(*) FILTER (WHERE l.id IS NULL),
  count(*) FILTER (WHERE (d.content, d.meta) IS DISTINCT FROM (l.content, l.meta))
FROM docs d FULL JOIN ledger l ON l.id = d.id
WHERE (d.content, d.meta) IS DISTINCT FROM (l.content, l.meta)
"""


@dataclass
class Told:
    """What a process did.

    Attributes:
        did: how often it did what.
        wrong: what must not have been.
        slowest: seconds of the slowest statement.
    """

    did: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    slowest: float = 0.0


# Writers


class Writer:
    """Writes records of its own: those whose id is `number` modulo WRITERS."""

    def __init__(self, url: str, number: int, seed: int, crashing: bool = False) -> None:
        self.told = Told()
        self._url, self._crashing = url, crashing
        self._docs = self._opened()
        self._number, self._chance = number, random.Random(f"{seed}-{number}")
        self._there = [id for id in range(1, RECORDS + 1) if id % WRITERS == number]
        self._gone: list[int] = []
        self._next = RECORDS + WRITERS + number - RECORDS % WRITERS
        self._model = "old"
        self._count = 0

    def _opened(self) -> App:
        """A connection, as soon as there is one."""
        settings = {"synchronous_commit": "off"} if self._crashing else {}
        docs = opened(self._url, self._crashing, **settings)
        docs.connection.autocommit = False
        return docs

    def _again(self) -> None:
        """Connect again after a crash, and look what of ours is left."""
        self._docs.close()
        self._docs = self._opened()
        self.told.did["crashed"] += 1
        rows = self._docs.run("SELECT id FROM ledger WHERE id %% %s = %s", WRITERS, self._number)
        self._docs.connection.commit()
        self._there, self._gone = [id for (id,) in rows], []

    def transaction(self) -> None:
        """Some writes, committed, committed late or rolled back; as told by the ledger where the
        server crashes meanwhile."""
        try:
            self._transaction()
        except psycopg.OperationalError:
            if not (self._crashing and self._docs.connection.broken):
                raise
        while self._docs.connection.broken:
            with contextlib.suppress(psycopg.OperationalError):
                self._again()

    def _transaction(self) -> None:
        """Some writes, committed, committed late or rolled back."""
        there, gone, did = list(self._there), list(self._gone), Counter[str]()
        try:
            for _ in range(self._chance.randint(1, 4)):
                verb = self._chance.choice(["add", "text", "meta", "delete", "again", "key"])
                start = time.monotonic()
                did[self._write(verb, there, gone)] += 1
                self.told.slowest = max(self.told.slowest, time.monotonic() - start)
            if self._chance.random() < LATE:
                time.sleep(self._chance.uniform(*LATE_SECONDS))
                did["late"] += 1
            if self._chance.random() < ROLLED_BACK:
                self._docs.connection.rollback()
                self.told.did["rolled back"] += 1
                return
            self._docs.connection.commit()
        except psycopg.errors.DataException:  # as wide as the other model's by now
            self._docs.connection.rollback()
            self._model = "new" if self._model == "old" else "old"
            self.told.did["switched"] += 1
        except psycopg.Error as error:
            if self._crashing and self._docs.connection.broken:
                return
            self._docs.connection.rollback()
            self.told.wrong.append(f"writer: {error}")
        else:
            self._there, self._gone = there, gone
            self.told.did += did

    def _write(self, verb: str, there: list[int], gone: list[int]) -> str:
        self._count += 1
        run = self._docs.run
        text = f"writer {self._number} wrote {self._count} {verb}"
        meta = json.dumps({"n": self._count})
        if verb == "again" and gone:
            id = gone.pop(self._chance.randrange(len(gone)))
        elif verb in ("add", "again") or len(there) < RECORDS // WRITERS // 2:
            verb, id = "add", self._next
            self._next += WRITERS
        else:
            id = self._chance.choice(there)
        if verb in ("add", "again"):
            run("INSERT INTO docs (id, content, meta, embedding) VALUES (%s, %s, %s, %s)",
                id, text, meta, literal(self._model, text))  # fmt: skip
            run("INSERT INTO ledger VALUES (%s, %s, %s)", id, text, meta)
            there.append(id)
        elif verb == "text":
            run("UPDATE docs SET content = %s, embedding = %s WHERE id = %s",
                text, literal(self._model, text), id)  # fmt: skip
            run("UPDATE ledger SET content = %s WHERE id = %s", text, id)
        elif verb == "meta":
            run("UPDATE docs SET meta = %s WHERE id = %s", meta, id)
            run("UPDATE ledger SET meta = %s WHERE id = %s", meta, id)
        else:
            there.remove(id)
            other = self._next if verb == "key" else None
            for table in ("docs", "ledger"):
                if other is None:
                    run(f"DELETE FROM {table} WHERE id = %s", id)
                else:
                    run(f"UPDATE {table} SET id = %s WHERE id = %s", other, id)
            if other is None:
                gone.append(id)
            else:
                there.append(other)
                self._next += WRITERS
        return verb

    def close(self) -> None:
        self._docs.close()


def opened(url: str, crashing: bool, **settings: str) -> App:
    """A connection; where the server crashes, as soon as there is one."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return App(url, **settings)
        except psycopg.OperationalError:
            if not crashing or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def write(
    url: str, number: int, seed: int, pause: float, crashing: bool, begin: Any, stop: Any, logs: Any
) -> None:  # fmt: skip
    """Write until told to stop."""
    writer = Writer(url, number, seed, crashing)
    begin.wait()
    while not stop.is_set():
        writer.transaction()
        stop.wait(pause)
    writer.close()
    logs.put((f"writer {number}", writer.told))


# Readers

LOOK = """
SELECT count(*), count(embedding), count(DISTINCT vector_dims(embedding)),
  (SELECT count(*) FROM ledger) FROM docs
"""


def read(
    url: str, repeatable: bool, seed: int, crashing: bool, begin: Any, stop: Any, logs: Any
) -> None:
    """Look until told to stop: never empty, short, mixed, or otherwise than the ledger."""
    told, chance = Told(), random.Random(f"{seed}-reader")
    docs = _reader(url, repeatable, crashing)
    begin.wait()
    while not stop.is_set():
        try:
            with docs.connection.transaction():
                _look(docs, told, chance, repeatable)
        except psycopg.Error as error:
            if crashing and docs.connection.broken:
                docs.close()
                docs = _reader(url, repeatable, crashing)
                continue
            told.wrong.append(f"reader: {error}")
        stop.wait(0.01)
    docs.close()
    logs.put((f"reader, {'REPEATABLE READ' if repeatable else 'statements'}", told))


def _reader(url: str, repeatable: bool, crashing: bool) -> App:
    docs = opened(url, crashing)
    if repeatable:
        docs.connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    return docs


def _look(docs: App, told: Told, chance: random.Random, repeatable: bool) -> None:
    if repeatable:
        docs.run("SELECT count(*) FROM ledger")
        time.sleep(chance.choice([0, 0.02, 0.3]))
    start = time.monotonic()
    rows, vectors, widths, expected = docs.run(LOOK)[0]
    told.slowest = max(told.slowest, time.monotonic() - start)
    if not (rows == vectors == expected and widths == 1 and rows):
        told.wrong.append(f"{rows} rows, {vectors} vectors of {widths} widths, {expected} expected")
    different = docs.run(DIFFERENT)[0]
    if any(different):
        told.wrong.append(f"lost, extra, stale: {different}")
    near = docs.run(
        "SELECT id FROM docs ORDER BY embedding <=> (SELECT embedding FROM docs LIMIT 1) LIMIT 5"
    )
    if len(near) != 5:
        told.wrong.append(f"a search found {len(near)} of 5")
    told.did["looks"] += 1
