"""Live writers and readers in Postgres: applications work through run, swap, rollback, swap and
clean, and in every snapshot the table is what they have committed.

    python -m tests.campaigns.soak.pg_writers --seconds 60 [--columns] [--seed 1]
    python -m tests.campaigns.soak.pg_writers --seconds 60 --crashes 3 [--columns]
    python -m tests.campaigns.soak.pg_writers --seconds 20 --watermark     (the negative control)

Three processes write: insertions, new texts, new metadata, deletions, deleted records added again,
changed keys; some of it rolled back, some of it committed late. Each notes in the same transaction
in the table `ledger` what the record is then, so that any snapshot can be checked against itself.
Writers embed by themselves and notice by the error that the table has another model. Two processes
read: one statement by statement, one in REPEATABLE READ transactions that look at the table late.

With `--crashes` the server crashes so often during each command, at random moments, and is started
again; the same command is given until it is done. Writers then commit with `synchronous_commit =
off`, so that a crash takes some of their last writes back, which a run may have seen; they connect
again and look at the ledger for what is left.

The control reads captured writes as "numbers above the last one read", as a queue must not be read.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import psycopg

from reembed.errors import LockedError, UnreachableError
from reembed.manifest import Manifest
from reembed.migration import Migration
from tests.campaigns.soak.pg_stage import UNFLUSHED
from tests.campaigns.soak.pg_writer import DIFFERENT, LEDGER, RECORDS, WRITERS, Told, read, write
from tests.support.pg_docs import app, make_docs, pg_manifest, traces
from tests.support.servers.postgres_server import PostgresServer, postgres_server
from tests.support.texts import vector_of

HANGING = "CREATE TABLE notes (doc bigint REFERENCES docs ON UPDATE CASCADE ON DELETE CASCADE)"


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
    work: Path,
    url: str,
    *,
    seconds: float,
    seed: int,
    pause: float,
    more: list[str],
    crasher: Crasher | None = None,
) -> tuple[dict[str, Found], dict[str, Told], list[str]]:
    """Run, swap, rollback, swap, clean under writers and readers; what was found after each."""
    make_docs(url, RECORDS, *LEDGER, *more)
    path = pg_manifest(work, url, verify__sample=100)
    context = multiprocessing.get_context("spawn")
    crashing = crasher is not None
    begin, stop, logs = context.Barrier(WRITERS + 3), context.Event(), context.Queue()
    crew = [
        context.Process(target=write, args=(url, number, seed, pause, crashing, begin, stop, logs))
        for number in range(WRITERS)
    ] + [
        context.Process(target=read, args=(url, how, seed, crashing, begin, stop, logs))
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
            notes.append(crasher.step(path, call) if crasher else _step(path, call))
            print(notes[-1], file=sys.stderr, flush=True)
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


class Crasher:
    """Lets the server crash a few times during each command, which is given until it is done.

    Args:
        crashes: for each command at most.
        after: seconds after which the first one comes at the latest, and each after another.
    """

    def __init__(self, server: PostgresServer, crashes: int, seed: int, after: float = 2.0) -> None:
        self._server, self._crashes, self._after = server, crashes, after
        self._chance = random.Random(f"{seed}-crashes")
        self.told: Counter[str] = Counter()

    def step(self, path: Path, call: str) -> str:
        done = threading.Event()

        def crash() -> None:
            for _ in range(self._crashes):
                if done.wait(self._chance.uniform(0, self._after)):
                    return
                self._server.crash()
                self.told[call] += 1

        thread = threading.Thread(target=crash)
        thread.start()
        again = Counter[str]()
        try:
            while True:
                try:
                    note = _step(path, call)
                except (LockedError, UnreachableError) as error:
                    again[type(error).__name__] += 1
                    if sum(again.values()) > 200:
                        raise
                    time.sleep(0.2)
                else:
                    return f"{note}, after {self.told[call]} crashes, given again: {dict(again)}"
        finally:
            done.set()
            thread.join()


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
    from reembed.stores.postgres import capture as pg_capture

    touched, last = pg_capture.touched, Counter[int]()

    def above(connection: Any, table: Any) -> pg_capture.Touched:
        found = touched(connection, table)
        rows = connection.execute(
            f"SELECT seq, id FROM {table.schema}.reembed_{table.oid}_log WHERE seq > %s",
            [last[table.oid]],
        ).fetchall()
        last[table.oid] = max([last[table.oid], *found.log])
        return pg_capture.Touched(dict(rows), table.prefix)

    return mock.patch("reembed.stores.postgres.capture.touched", above)


def main() -> int:
    """Tell the story once, print what was found, and fail if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=60, help="of writing besides the work")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pause", type=float, default=0.02, help="seconds between transactions")
    parser.add_argument("--columns", action="store_true", help="a table that keeps its place")
    parser.add_argument("--crashes", type=int, default=0, help="of the server in each command")
    parser.add_argument("--watermark", action="store_true", help="the negative control")
    given = parser.parse_args()
    with ExitStack() as stack:
        server = stack.enter_context(postgres_server(**UNFLUSHED if given.crashes else {}))
        url = stack.enter_context(server.database())
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="reembed-pg-writers-")))
        if given.watermark:
            stack.enter_context(by_watermark())
            more = ["ALTER TABLE docs DROP CONSTRAINT docs_slug_key"]  # or it would tell by itself
        else:
            more = [HANGING] if given.columns else []
        crasher = None
        if given.crashes:
            crasher = Crasher(server, given.crashes, given.seed)
            stack.enter_context(mock.patch("reembed.stores.postgres.client.QUIET_SECONDS", 0.0))
        found, told, notes = story(
            work, url, seconds=given.seconds, seed=given.seed, pause=given.pause,
            more=more, crasher=crasher,
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
