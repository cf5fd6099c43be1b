"""Live writers and readers in Postgres: applications work through run, swap, rollback, swap and
clean, and in every snapshot the table is what they have committed.

    python -m tests.soak.pg_writers --seconds 60 [--columns] [--seed 1]
    python -m tests.soak.pg_writers --seconds 20 --watermark     (the negative control)

Three processes write: insertions, new texts, new metadata, deletions, deleted records added again,
changed keys; some of it rolled back, some of it committed late. Each notes in the same transaction
in the table `ledger` what the record is then, so that any snapshot can be checked against itself.
Writers embed by themselves and notice by the error that the table has another model. Two processes
read: one statement by statement, one in REPEATABLE READ transactions that look at the table late.

The control reads captured writes as "numbers above the last one read", as a queue must not be read.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import psycopg

from reembed.manifest import Manifest
from reembed.migration import Migration
from tests.helpers import vector_of
from tests.pg_docs import App, app, literal, make_docs, pg_manifest, traces
from tests.servers.postgres_server import postgres_server

WRITERS = 3
RECORDS = 300
ROLLED_BACK, LATE = 0.15, 0.3
"""Of the transactions, how many are rolled back, and how many stay open for LATE_SECONDS."""
LATE_SECONDS = (0.05, 0.5)
HANGING = "CREATE TABLE notes (doc bigint REFERENCES docs ON UPDATE CASCADE ON DELETE CASCADE)"
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

    def __init__(self, url: str, number: int, seed: int) -> None:
        self.told = Told()
        self._docs = App(url)
        self._docs.connection.autocommit = False
        self._number, self._chance = number, random.Random(f"{seed}-{number}")
        self._there = [id for id in range(1, RECORDS + 1) if id % WRITERS == number]
        self._gone: list[int] = []
        self._next = RECORDS + WRITERS + number - RECORDS % WRITERS
        self._model = "old"
        self._count = 0

    def transaction(self) -> None:
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


def write(url: str, number: int, seed: int, pause: float, begin: Any, stop: Any, logs: Any) -> None:
    """Write until told to stop."""
    writer = Writer(url, number, seed)
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


def read(url: str, repeatable: bool, seed: int, begin: Any, stop: Any, logs: Any) -> None:
    """Look until told to stop: never empty, short, mixed, or otherwise than the ledger."""
    told, chance = Told(), random.Random(f"{seed}-reader")
    with app(url) as docs:
        if repeatable:
            docs.connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        begin.wait()
        while not stop.is_set():
            try:
                with docs.connection.transaction():
                    _look(docs, told, chance, repeatable)
            except psycopg.Error as error:
                told.wrong.append(f"reader: {error}")
            stop.wait(0.01)
    logs.put((f"reader, {'REPEATABLE READ' if repeatable else 'statements'}", told))


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


# The whole


@dataclass
class Found:
    """The table against the ledger and the live model, in one snapshot."""

    rows: int
    lost: int
    extra: int
    stale: int
    mismatched: int

    @property
    def wrong(self) -> int:
        return self.lost + self.extra + self.stale + self.mismatched

    def __str__(self) -> str:
        return (
            f"{self.rows} rows: {self.lost} lost, {self.extra} extra, {self.stale} stale, "
            f"{self.mismatched} vectors that don't match"
        )


def compare(url: str, model: str) -> Found:
    """Every record and every vector, while writers write."""
    with app(url) as docs:
        docs.connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        with docs.connection.transaction():
            lost, extra, different = docs.run(DIFFERENT)[0]
            rows = docs.run("SELECT content, embedding::text FROM docs")
    mismatched = sum(
        vector is None
        or len(got := json.loads(vector)) != len(expected := vector_of(model, text))
        or not np.allclose(got, expected)
        for text, vector in rows
    )
    return Found(len(rows), lost, extra, different - lost - extra, mismatched)


def story(
    work: Path, url: str, *, seconds: float, seed: int, pause: float, columns: bool
) -> tuple[dict[str, Found], dict[str, Told], list[str]]:
    """Run, swap, rollback, swap, clean under writers and readers; what was found after each."""
    make_docs(url, RECORDS, *LEDGER, *([HANGING] if columns else []))
    path = pg_manifest(work, url, verify__sample=100)
    context = multiprocessing.get_context("spawn")
    begin, stop, logs = context.Barrier(WRITERS + 3), context.Event(), context.Queue()
    crew = [
        context.Process(target=write, args=(url, number, seed, pause, begin, stop, logs))
        for number in range(WRITERS)
    ] + [
        context.Process(target=read, args=(url, how, seed, begin, stop, logs))
        for how in (True, False)
    ]
    for process in crew:
        process.start()
    begin.wait(120)
    found: dict[str, Found] = {}
    notes: list[str] = []
    try:
        for name, call, model in (
            ("run", "run()", "old"), ("swap", "swap()", "new"), ("rollback", "rollback()", "old"),
            ("swap again", "run(swap=True)", "new"), ("verify", "verify()", "new"),
            ("clean", "clean()", "new"),
        ):  # fmt: skip
            time.sleep(seconds / 6)
            notes.append(_step(path, call))
            found[name] = compare(url, model)
            if found[name].wrong:  # it is proved; see whether we say so, too
                stop.set()
                notes.append(_step(path, "verify()"))
                break
    finally:
        stop.set()
        told = dict(logs.get(timeout=60) for _ in crew)
        for process in crew:
            process.join(60)
    found["all that"] = compare(url, model)
    return found, told, notes


def _step(path: Path, call: str) -> str:
    start = time.monotonic()
    migration = Migration(Manifest.load(path))
    result = eval(f"migration.{call}", {"migration": migration}).to_dict()
    keys = ("caught_up", "swept", "conflicts", "lost", "messages", "state")
    told = {key: result[key] for key in keys if result.get(key)}
    gates = (result.get("verdict") or {}).get("gates", [])
    told |= {gate["name"]: gate["message"] for gate in gates if gate["status"] != "pass"}
    return f"{call} {time.monotonic() - start:.1f} s {json.dumps(told)}"


def by_watermark() -> Any:
    """Read the queue as one that is numbered: what has a number above the last one read."""
    from reembed.stores import pg_capture

    touched, last = pg_capture.touched, Counter[int]()

    def above(connection: Any, table: Any) -> pg_capture.Touched:
        found = touched(connection, table)
        rows = connection.execute(
            f"SELECT id FROM {table.schema}.reembed_{table.oid}_log WHERE seq > %s",
            [last[table.oid]],
        ).fetchall()
        last[table.oid] = max([last[table.oid], *found.entries])
        return pg_capture.Touched(list(dict.fromkeys(id for (id,) in rows)), False, [])

    return mock.patch("reembed.stores.pg_capture.touched", above)


def main() -> int:
    """Tell the story once, print what was found, and fail if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=60, help="of writing besides the work")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pause", type=float, default=0.02, help="seconds between transactions")
    parser.add_argument("--columns", action="store_true", help="a table that keeps its place")
    parser.add_argument("--watermark", action="store_true", help="the negative control")
    given = parser.parse_args()
    with ExitStack() as stack:
        server = stack.enter_context(postgres_server())
        url = stack.enter_context(server.database())
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="reembed-pg-writers-")))
        if given.watermark:
            stack.enter_context(by_watermark())
        found, told, notes = story(
            work, url, seconds=given.seconds, seed=given.seed, pause=given.pause,
            columns=given.columns,
        )  # fmt: skip
        left = [] if given.watermark else traces(url)
    print("\n".join(notes))
    for who, one in told.items():
        print(f"{who}: {dict(one.did)}, slowest {one.slowest:.2f} s, {len(one.wrong)} wrong")
        print("\n".join(f"  {what}" for what in one.wrong[:3]), end="\n" if one.wrong else "")
    for moment, now in found.items():
        print(f"after {moment}: {now}")
    wrong = sum(now.wrong for now in found.values()) + len(left)
    if given.watermark:
        told_so = any("late writes" in note for note in notes)
        print(f"{wrong} wrong, and verify {'says so' if told_so else 'does not say so'}")
        return 0 if wrong and told_so else 1
    wrong += sum(len(one.wrong) for one in told.values())
    print(f"left behind: {left}" if left else "nothing is left behind")
    print("0 lost, 0 extra, 0 stale" if not wrong else f"{wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
