"""What tests.campaigns.benchmarks.postgres measures, step by step.

A step is a generator: it yields once when all is ready, works until it yields again, and then
cleans up.
"""

from __future__ import annotations

import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psycopg
import pyarrow as pa
from pgvector.psycopg import register_vector

from reembed.manifest import Model
from reembed.progress import Progress
from reembed.records import (
    EXPORT_SCHEMA,
    SHARD_ROWS,
    embed_schema,
    fixed_array_to_vectors,
    text_hash,
    vectors_to_fixed_array,
)
from reembed.run.directory import RunDir
from reembed.run.ledger import Ledger
from reembed.stages.export import export, take_census
from reembed.stages.load import load
from reembed.stores.collection import Collection
from reembed.stores.registry import open_store
from reembed.stores.store import Store
from reembed.stores.values import CollectionSpec
from reembed.sync.difference import find_difference
from tests.campaigns.benchmarks.postgres_tables import DIMENSIONS, Form, rows, write
from tests.support.stores import build_index, snapshot_of

MODEL = Model(
    provider="python", name="tests.campaigns.benchmarks.scene:embed_768", dimensions=DIMENSIONS
)
SHADOW = "bench_shadow"
INDEXED = 20_000
"""Rows that are indexed: an index of 100,000 takes minutes, and nothing of it is reembed's."""
QUERIES = 200


@dataclass(frozen=True)
class Bench:
    """One table and what is measured with it.

    Attributes:
        folder: of the runs; `prepared` is one that was embedded.
    """

    url: str
    form: Form
    count: int
    folder: Path

    @property
    def table(self) -> str:
        return f"{self.form.name}_{self.count}"

    @property
    def prepared(self) -> Path:
        return self.folder / f"{self.table}-prepared"


def copy_out(bench: Bench) -> Iterator[None]:
    with psycopg.connect(bench.url) as connection, connection.cursor() as cursor:
        yield
        query = f"COPY {bench.table} ({bench.form.names}) TO STDOUT (FORMAT BINARY)".encode()
        with cursor.copy(query) as copy:
            kept = list(copy)
        assert len(kept) >= bench.count
        yield


def fetch(bench: Bench) -> Iterator[None]:
    store = open_store(bench.url)
    id = store.catalog.describe(bench.table).id
    yield
    with snapshot_of(store):
        read = sum(
            store.reader.fetch(id, page.to_pylist(), vectors=True).num_rows
            for page in store.reader.list_ids(id)
        )
    assert read == bench.count
    yield


def export_stage(bench: Bench) -> Iterator[None]:
    store = open_store(bench.url)
    run = RunDir.create(bench.folder / "runs", "", {})
    yield
    source = store.catalog.describe(bench.table)
    with snapshot_of(store):
        census = take_census(Collection(store, source.id), source, run)
        shards = export(Collection(store, source.id), census, run, Progress())
    assert sum(shard.rows for shard in shards.values()) == bench.count
    yield
    if bench.prepared.exists():
        shutil.rmtree(run.path)
    else:
        _embed(run)
        run.path.rename(bench.prepared)


def _embed(run: RunDir) -> None:
    """Embed shards of random vectors, and the ledger."""
    generator = np.random.default_rng(0)
    for stem, shard in run.shards("export").items():
        ids = run.read_shard(shard, ["id"]).column("id").to_pylist()
        vectors = generator.normal(size=(len(ids), DIMENSIONS)).astype(np.float32)
        columns = ids, [text_hash("")] * len(ids), [60] * len(ids), vectors_to_fixed_array(vectors)
        table = pa.table(list(columns), schema=embed_schema(DIMENSIONS))
        run.write_shard("embed", stem, table, source=shard.sha256)
    Ledger(run).close()


def _shadow(bench: Bench, store: Store) -> str:
    like = store.catalog.describe(bench.table).id
    made = store.to_write().create(CollectionSpec(
        SHADOW, dimensions=DIMENSIONS, metric="cosine", index={}, metadata=None, model=MODEL,
        like=like,
    ))  # fmt: skip
    with psycopg.connect(bench.url, autocommit=True) as connection:
        connection.execute("CHECKPOINT")  # of what the step before has written
    return made.id


def _finish(bench: Bench, store: Store, id: str) -> None:
    assert store.reader.count(id) == bench.count
    store.to_write().drop(id)
    store.close()


def copy_in(bench: Bench) -> Iterator[None]:
    store = open_store(bench.url)
    id = _shadow(bench, store)
    batches = [rows(bench.form, start, min(SHARD_ROWS, bench.count - start))
               for start in range(0, bench.count, SHARD_ROWS)]  # fmt: skip
    with psycopg.connect(bench.url, autocommit=True) as connection:
        yield
        write(connection, bench.form, SHADOW, batches)
        yield
    _finish(bench, store, id)


def add(bench: Bench) -> Iterator[None]:
    store = open_store(bench.url)
    id = _shadow(bench, store)
    run = RunDir(bench.prepared)
    batches = []
    for stem, shard in run.shards("export").items():
        records = run.read_shard(shard, ["id", "document", "metadata", "uri"])
        for name in ("embedding", "row_sha256"):
            field = EXPORT_SCHEMA.field(name).with_nullable(True)
            records = records.append_column(field, pa.nulls(len(records), field.type))
        vectors = run.read_shard(run.shards("embed")[stem], ["embedding"]).column("embedding")
        batches.append((records.to_batches()[0], fixed_array_to_vectors(vectors)))
    yield
    for batch, vectors in batches:
        store.to_write().write(id, batch, vectors, "add")
    yield
    _finish(bench, store, id)


def load_stage(bench: Bench) -> Iterator[None]:
    store = open_store(bench.url)
    id = _shadow(bench, store)
    path = bench.folder / "runs" / "load"
    shutil.copytree(bench.prepared, path, copy_function=os.link)
    (path / "journal.jsonl").unlink()  # the one file that is written to
    shutil.copy(bench.prepared / "journal.jsonl", path)
    run = RunDir(path)
    with Ledger(run) as ledger:
        yield
        load(Collection(store, id), run, ledger, Progress())
        yield
    shutil.rmtree(path)
    _finish(bench, store, id)


def look(bench: Bench) -> dict[str, float]:
    """What is done beside the stages: the index, a search, a comparison of every record."""
    store = open_store(bench.url)
    id = store.catalog.describe(bench.table).id
    figures: dict[str, float] = {}
    with Ledger(RunDir(bench.prepared)) as ledger:
        start = time.perf_counter()
        difference = find_difference(Collection(store, id), ledger)
        figures["compare, s"] = time.perf_counter() - start
        assert (difference.compared, len(difference)) == (bench.count, 0)
    shadow = _shadow(bench, store)
    with psycopg.connect(bench.url, autocommit=True) as connection:
        names = bench.form.names
        connection.execute(
            f"INSERT INTO {SHADOW} ({names}) SELECT {names} FROM {bench.table} "
            f"LIMIT {INDEXED}".encode()
        )
        start = time.perf_counter()
        build_index(store, shadow)
        figures["index, s"] = time.perf_counter() - start
        register_vector(connection)
        queries = np.random.default_rng(1).normal(size=(QUERIES, DIMENSIONS)).astype(np.float32)
        vector = bench.form.columns[-1][0]
        query = f"SELECT id FROM {SHADOW} ORDER BY {vector} <=> %b LIMIT 10".encode()
        store.to_search().query(shadow, queries[:1], 10)  # loads the index
        bare, ours = [], []
        for _ in range(5):
            start = time.perf_counter()
            for one in queries:
                connection.execute(query, [one], prepare=True).fetchall()
            between = time.perf_counter()
            store.to_search().query(shadow, queries, 10)
            bare.append(between - start)
            ours.append(time.perf_counter() - between)
        figures["bare query, ms"] = statistics.median(bare) / QUERIES * 1e3
        figures["query, ms"] = statistics.median(ours) / QUERIES * 1e3
    store.to_write().drop(shadow)
    store.close()
    return figures


STEPS: dict[str, Callable[[Bench], Iterator[None]]] = {
    "COPY out": copy_out, "fetch": fetch, "export": export_stage,
    "COPY in": copy_in, "add": add, "load": load_stage,
}  # fmt: skip
