"""How long writers wait: an application writes at a steady rate while a large table's live name
moves, and moves back.

    python -m tests.campaigns.soak.pg_hold --rows 100000 [--columns] [--rate 50]

Four sessions insert records, give them other texts and delete them, each write timed. At the end
the table is held against what they have written, row by row. It fails if anything is lost, or if a
write has taken longer than --most seconds.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import random
import statistics
import sys
import tempfile
import time
import zlib
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psycopg

from reembed.errors import SourceChangedError
from reembed.manifest import Manifest
from reembed.migration import Migration
from tests.support.manifests import write_manifest
from tests.support.pg_scene import written
from tests.support.servers.postgres_server import postgres_server

WRITERS = 4
TOPICS, NOISE = 12, 0.3
"""Directions in which texts differ, and how much they do in all others."""
MODEL = """
import numpy as np
from tests.campaigns.soak.pg_hold import vector as vector_of

def old(texts):
    return np.stack([vector(text, 1) for text in texts])

def new(texts):
    return np.stack([vector(text, 2) for text in texts])

def vector(text, model):
    return vector_of(text, model, {dimensions})
"""
TABLE = """
CREATE TABLE docs (id bigint PRIMARY KEY, content text NOT NULL, meta jsonb,
  embedding vector({dimensions}) NOT NULL);
"""
TRIGGER = """
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.meta =
  jsonb_build_object('touched', coalesce((OLD.meta->>'touched')::int, 0) + 1); RETURN NEW; END $$;
CREATE TRIGGER touched BEFORE UPDATE ON docs FOR EACH ROW EXECUTE FUNCTION touch();
"""
"""So that the table keeps its place; it counts updates, and must see the application's alone."""


def vector(text: str, model: int, dimensions: int) -> np.ndarray:
    """A model's vector of a text, as `MODEL` gives it.

    A text has a place among TOPICS, the same for both models, which each of them stretches over
    all of its dimensions: so the texts near a text are near it in each model, as real embeddings
    are. No index finds the neighbours of vectors that are random in every dimension.
    """
    place = np.random.default_rng(zlib.crc32(text.encode())).standard_normal(TOPICS + dimensions)
    value = place[:TOPICS] @ _stretched(model, dimensions) + NOISE * place[TOPICS:]
    return np.asarray(value, np.float32)


@functools.cache
def _stretched(model: int, dimensions: int) -> np.ndarray:
    """What each topic is in each dimension, `(TOPICS, dimensions)`."""
    return np.random.default_rng(model).standard_normal((TOPICS, dimensions))


@dataclass
class Wrote:
    """What a session has written, and how long each write took, in seconds.

    Attributes:
        rows: id to the text that it has, None for a record that was deleted.
        updates: id to how often it was updated.
        took: by the second of the clock in which it began.
    """

    rows: dict[int, str | None] = field(default_factory=dict)
    updates: dict[int, int] = field(default_factory=dict)
    took: list[tuple[float, float]] = field(default_factory=list)


def write(
    url: str, number: int, rows: int, rate: float, dimensions: int, begin: Any, stop: Any, out: Any
) -> None:
    """Write at a rate until told to stop."""
    chance, wrote = random.Random(number), Wrote()
    there = [id for id in range(rows) if id % WRITERS == number]
    following, model, count = rows - rows % WRITERS + WRITERS + number, 1, 0
    with psycopg.connect(url, autocommit=True) as connection:
        begin.wait()
        due = time.monotonic()
        while not stop.is_set():
            due += WRITERS / rate
            stop.wait(max(0.0, due - time.monotonic()))
            count += 1
            text, verb = f"writer {number} wrote {count}", chance.choice("iiuuud")
            id = following if verb == "i" else chance.choice(there)
            began, clock = time.monotonic(), time.time()
            try:
                _write(connection, verb, id, text, model, dimensions)
            except psycopg.errors.DataException:  # as wide as the other model's by now
                model = 3 - model
                _write(connection, verb, id, text, model, dimensions)
            wrote.took.append((clock, time.monotonic() - began))
            if verb == "i":
                there.append(id)
                following += WRITERS
            elif verb == "u":
                wrote.updates[id] = wrote.updates.get(id, 0) + 1
            else:
                there.remove(id)
            wrote.rows[id] = None if verb == "d" else text
            due = max(due, time.monotonic())
    out.put(wrote)


def _write(
    connection: psycopg.Connection, verb: str, id: int, text: str, model: int, dimensions: int
) -> None:  # fmt: skip
    value = written(vector(text, model, dimensions + model - 1))
    if verb == "i":
        connection.execute(
            "INSERT INTO docs (id, content, embedding) VALUES (%s, %s, %s)", [id, text, value]
        )
    elif verb == "u":
        connection.execute(
            "UPDATE docs SET content = %s, embedding = %s WHERE id = %s", [text, value, id]
        )
    else:
        connection.execute("DELETE FROM docs WHERE id = %s", [id])


def make(url: str, rows: int, dimensions: int, columns: bool) -> None:
    """The table, full and indexed."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(TABLE.format(dimensions=dimensions))
        with connection.cursor().copy("COPY docs (id, content, embedding) FROM STDIN") as copy:
            for id in range(rows):
                text = f"text {id}"
                copy.write_row([id, text, written(vector(text, 1, dimensions))])
        connection.execute("SET maintenance_work_mem = '2GB'")
        connection.execute("CREATE INDEX ON docs USING hnsw (embedding vector_cosine_ops)")
        if columns:
            connection.execute(TRIGGER)


def wrong(url: str, rows: int, dimensions: int, model: int, wrote: list[Wrote]) -> list[str]:
    """How the table differs from what was written, in words."""
    expected: dict[int, str | None] = {id: f"text {id}" for id in range(rows)}
    updates: dict[int, int] = {}
    for one in wrote:
        expected |= one.rows
        updates |= one.updates
    expected = {id: text for id, text in expected.items() if text is not None}
    told = []
    with psycopg.connect(url) as connection:
        found = connection.execute(
            "SELECT id, content, coalesce((meta->>'touched')::int, 0), (SELECT count(*) FROM "
            "pg_trigger WHERE tgname = 'touched' AND tgenabled = 'O') FROM docs"
        ).fetchall()
        now = {id: text for id, text, _, _ in found}
        told += [f"lost: {id}" for id in expected.keys() - now.keys()]
        told += [f"extra: {id}" for id in now.keys() - expected.keys()]
        told += [f"stale: {id}" for id in now.keys() & expected.keys() if now[id] != expected[id]]
        told += [
            f"trigger fired {times} times for {id}, which was updated {updates.get(id, 0)} times"
            for id, _, times, fires in found
            if fires and times != updates.get(id, 0)
        ]
        written_to = [id for one in wrote for id in one.rows if id in now]
        looked = [*written_to, *random.Random(1).sample(sorted(now), min(2_000, len(now)))]
        for id, text, value in connection.execute(
            "SELECT id, content, embedding::text FROM docs WHERE id = ANY (%s)", [looked]
        ):
            right = vector(text, model, dimensions + model - 1)
            if not np.allclose(json.loads(value), right, rtol=1e-4, atol=1e-5):
                told.append(f"vector of another text or model: {id}")
    return told


def story(url: str, work: Path, given: argparse.Namespace) -> tuple[list[str], float]:
    """Run, swap and roll back. Returns what was wrong, and the longest wait in seconds."""
    make(url, given.rows, given.dimensions, given.columns)
    (work / "wide_model.py").write_text(
        MODEL.replace("{dimensions}", f"({given.dimensions} + model - 1)")
    )
    models = {
        name: {"provider": "python", "name": f"wide_model:{name}"} for name in ("old", "new")
    }  # fmt: skip
    path = write_manifest(
        work, url, model=models["new"], source__model=models["old"], verify__sample=200,
        swap__keep_old="0d",
    )  # fmt: skip
    context = multiprocessing.get_context("spawn")
    begin, stop, out = context.Barrier(WRITERS + 1), context.Event(), context.Queue()
    plan = Migration(Manifest.load(path)).plan()
    told = [str(one) for one in plan.warnings if "riters wait" in str(one)]
    print("\n".join(told))
    began = time.monotonic()
    Migration(Manifest.load(path)).run()
    print(f"run: {time.monotonic() - began:.0f} s")
    crew = [
        context.Process(
            target=write,
            args=(url, number, given.rows, given.rate, given.dimensions, begin, stop, out),
        )
        for number in range(WRITERS)
    ]
    for process in crew:
        process.start()
    begin.wait(120)
    spans, told, model = [], list[str](), 1
    try:
        time.sleep(5)
        for step in ("swap", "rollback"):
            began = time.time()
            try:
                result = getattr(Migration(Manifest.load(path)), step)()
            except SourceChangedError as error:
                told = [f"{step} stopped after {time.time() - began:.0f} s: {error.message}"]
                break
            spans.append((step, began, time.time(), result))
            time.sleep(5)
    finally:
        stop.set()
        wrote = [out.get(timeout=120) for _ in crew]
        for process in crew:
            process.join(60)
    took = sorted(one for each in wrote for one in each.took)
    for step, began, ended, result in spans:
        mine = [seconds for clock, seconds in took if began - 1 <= clock <= ended]
        print(
            f"{step}: {ended - began:.0f} s, {len(mine)} writes meanwhile: median "
            f"{statistics.median(mine) * 1000:.1f} ms, longest {max(mine):.2f} s; caught up "
            f"{result.caught_up}, held {result.held_seconds}"
        )  # fmt: skip
    model += len(spans) % 2
    told += wrong(url, given.rows, given.dimensions, model, wrote)
    return told, max(one for _, one in took)


def main() -> int:
    """Tell the story once, print what was found, and fail if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dimensions", type=int, default=768)
    parser.add_argument("--rate", type=float, default=50, help="writes per second")
    parser.add_argument("--columns", action="store_true", help="a table that keeps its place")
    parser.add_argument("--most", type=float, default=1.0, help="seconds that a write may take")
    given = parser.parse_args()
    with ExitStack() as stack:
        server = stack.enter_context(postgres_server())
        url = stack.enter_context(server.database())
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="reembed-pg-hold-")))
        told, longest = story(url, work, given)
    print("\n".join(told[:20]))
    print(f"{len(told)} wrong; the longest write took {longest:.2f} s")
    return 1 if told or longest > given.most else 0


if __name__ == "__main__":
    sys.exit(main())
