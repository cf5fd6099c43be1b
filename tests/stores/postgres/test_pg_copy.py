"""Rows out of and into Postgres: what every field of a row is, however many blocks it takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pytest

from reembed.errors import PreflightError, TakenError, UnreachableError
from reembed.manifest import Model
from reembed.records import export_batch, row_hash
from reembed.stores.postgres.copy import reading as pg_reading
from reembed.stores.registry import open_store
from reembed.stores.store import Store
from reembed.stores.values import CollectionSpec
from tests.support.servers.postgres_server import PostgresServer

SIZES = [1, 300, 1 << 20]
MODEL = Model(provider="python", name="m:f")


@pytest.fixture(params=SIZES)
def store(request: pytest.FixtureRequest, postgres_url: str, monkeypatch: Any) -> Iterator[Store]:
    """A database, read in blocks of one row, of some, and of all."""
    monkeypatch.setattr(pg_reading, "BLOCK_BYTES", request.param)
    opened = open_store(postgres_url)
    yield opened
    opened.close()


def execute(store: Store, *statements: str) -> None:
    with psycopg.connect(store.url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def fetched(store: Store, name: str, vectors: bool = True) -> list[dict[str, Any]]:
    id = store.catalog.describe(name).id
    ids = [one for page in store.reader.list_ids(id) for one in page.to_pylist()]
    rows: list[dict[str, Any]] = store.reader.fetch(id, ids, vectors=vectors).to_pylist()
    return rows


def test_every_kind_of_null_and_of_text(store: Store) -> None:
    execute(
        store,
        "CREATE TABLE t (id bigint PRIMARY KEY, content text, meta json, embedding vector(3))",
        """INSERT INTO t VALUES (-1, 'text', '{"a": 1.10}', '[1,2,3]'), (2, NULL, NULL, NULL),"""
        """ (3, '', 'null', '[0.5,-1,1e-30]'), (9223372036854775807, 'é☃𝄞', ' null ', NULL),"""
        """ (4, 'null', '"null"', '[3,2,1]')""",
    )
    given = [
        ("-1", "text", '{"a": 1.10}', [1.0, 2.0, 3.0]), ("2", None, "null", None),
        ("3", "", " null", [0.5, -1.0, np.float32(1e-30)]),
        ("9223372036854775807", "é☃𝄞", "  null ", None), ("4", "null", '"null"', [3.0, 2.0, 1.0]),
    ]  # fmt: skip
    rows = fetched(store, "t")
    assert [(r["id"], r["document"], r["metadata"], r["embedding"]) for r in rows] == given
    for row in rows:
        assert row["uri"] is None
        assert row["row_sha256"] == row_hash(row["id"], row["document"], row["metadata"], None)
    assert [row["embedding"] for row in fetched(store, "t", vectors=False)] == [None] * 5
    copy = store.to_write().create(CollectionSpec(
        "copy", dimensions=3, metric="l2", index={}, metadata=None, model=MODEL,
        like=store.catalog.describe("t").id,
    ))  # fmt: skip
    kept = [row for row in given if row[3] is not None]
    columns = [[row[place] for row in kept] for place in range(3)]
    batch = export_batch(columns[0], columns[1], columns[2], [None] * len(kept))
    store.to_write().write(copy.id, batch, np.array([k[3] for k in kept], np.float32), "add")
    assert fetched(store, "copy") == [r for r in rows if r["embedding"]]


def test_an_empty_table(store: Store) -> None:
    execute(store, "CREATE TABLE t (id uuid PRIMARY KEY, embedding vector(3))")
    assert fetched(store, "t") == []
    id = store.catalog.describe("t").id
    assert (
        store.reader.fetch(id, ["00000000-0000-0000-0000-000000000000"], vectors=True).num_rows == 0
    )


def test_vectors_of_several_lengths(store: Store) -> None:
    """A column that is not typed, on the way out: what to do with them is for others to say."""
    execute(
        store,
        "CREATE TABLE typed (id int PRIMARY KEY, embedding vector(1))",
        "CREATE TABLE t (id int PRIMARY KEY, embedding vector)",
        "INSERT INTO t SELECT i, CASE WHEN i % 5 > 0 THEN array_fill(i, ARRAY[i % 5])::vector END "
        "FROM generate_series(1, 40) i",
    )
    with psycopg.connect(store.url) as connection:
        (oid,) = connection.execute("SELECT 't'::regclass::oid").fetchone() or ()
    id = f"{store.catalog.describe('typed').id.rpartition('/')[0]}/{oid}"
    rows = store.reader.fetch(id, [str(i) for i in range(40, 0, -1)], vectors=True).to_pylist()
    assert [row["embedding"] for row in rows] == [
        [float(i)] * (i % 5) if i % 5 else None for i in range(40, 0, -1)
    ]


def test_half_precision(store: Store) -> None:
    execute(
        store,
        "CREATE TABLE t (id varchar PRIMARY KEY, embedding halfvec(2))",
        """INSERT INTO t VALUES ('a,"{}', '[0.5,-2]'), ('', '[65504,0]')""",
    )
    assert {row["id"]: row["embedding"] for row in fetched(store, "t")} == {
        'a,"{}': [0.5, -2.0], "": [65504.0, 0.0],
    }  # fmt: skip


def test_text_that_is_no_utf8_is_refused(postgres: PostgresServer) -> None:
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE bytes ENCODING 'SQL_ASCII' TEMPLATE template0")
    url = postgres.url("bytes")
    try:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE EXTENSION vector")
            connection.execute("CREATE TABLE t (id int PRIMARY KEY, content text, v vector(1))")
            connection.execute("INSERT INTO t VALUES (1, E'a\\xff', '[1]')")
        store = open_store(url)
        with pytest.raises(PreflightError, match="invalid byte sequence"):
            store.reader.fetch(store.catalog.describe("t").id, ["1"], vectors=True)
        store.close()
    finally:
        postgres.drop_database("bytes")


TYPES = [
    ("uuid", "00000000-0000-0000-0000-00000000000a", "x"),
    ("int2", "-32768", "32768"), ("int4", "2147483647", "2147483648"),
    ("int8", "-9223372036854775808", "9223372036854775808"), ("int8", "7", "seven"),
    ("text", "any", "a\x00b"),
]  # fmt: skip


@pytest.mark.parametrize(("type", "good", "bad"), TYPES)
def test_ids_of_every_type_and_what_they_refuse(
    postgres_url: str, type: str, good: str, bad: str
) -> None:
    store = open_store(postgres_url)
    execute(store, f"CREATE TABLE t (id {type} PRIMARY KEY, content text, embedding vector(2))")
    id = store.catalog.describe("t").id
    one, two = np.ones((1, 2), np.float32), np.ones((2, 2), np.float32)
    store.to_write().write(id, export_batch([good], ["text"], ["null"], [None]), one, "add")
    assert [row["id"] for row in fetched(store, "t")] == [good]
    with pytest.raises(PreflightError) as caught:
        store.to_write().write(
            id, export_batch([good, bad], ["a", "b"], ["null"] * 2, [None] * 2), two, "replace"
        )
    assert repr(bad) in caught.value.message
    assert [row["document"] for row in fetched(store, "t")] == ["text"]
    store.close()


def test_more_rows_than_are_encoded_at_once(postgres_url: str) -> None:
    store = open_store(postgres_url)
    made = store.to_write().create(
        CollectionSpec("t", dimensions=500, metric="cosine", index={}, metadata=None, model=MODEL)
    )
    vectors = np.random.default_rng(0).normal(size=(1_000, 500)).astype(np.float32)
    ids = [f"r{i:04}" for i in range(1_000)]
    batch = export_batch(ids, [None] * 1_000, ["null"] * 1_000, ids)
    store.to_write().write(made.id, batch, vectors, "add")
    there = store.reader.fetch(made.id, ids[::-1], vectors=True)
    assert there.column("uri").to_pylist() == ids[::-1]
    values = there.column("embedding").flatten().to_numpy().reshape(1_000, 500)
    np.testing.assert_array_equal(values, vectors[::-1])
    store.close()


def test_rows_that_are_there_are_left_and_the_others_come(postgres_url: str) -> None:
    store = open_store(postgres_url)
    execute(store, "CREATE TABLE t (id int PRIMARY KEY, content text UNIQUE, embedding vector(1))")
    id = store.catalog.describe("t").id
    store.to_write().write(id, _texts(["2"], ["old"]), np.ones((1, 1), np.float32), "add")
    store.to_write().write(
        id, _texts(["1", "2", "3"], ["a", "b", "c"]), np.ones((3, 1), np.float32), "add"
    )
    assert {row["id"]: row["document"] for row in fetched(store, "t")} == {
        "1": "a", "2": "old", "3": "c",
    }  # fmt: skip
    with pytest.raises(TakenError, match="t_content_key") as caught:
        store.to_write().write(
            id, _texts(["4", "2"], ["a", "c"]), np.ones((2, 1), np.float32), "add"
        )
    assert caught.value.taken == {"4": ["1"]}, "the record that is there is left as it is"
    assert store.reader.count(id) == 3
    store.close()


def _texts(ids: list[str], texts: list[str]) -> pa.RecordBatch:
    return export_batch(ids, texts, ["null"] * len(ids), [None] * len(ids))


def test_a_lost_connection_in_the_middle_is_told(postgres_url: str) -> None:
    """The thread that parses is over by then, and no row is returned."""
    store = open_store(postgres_url)
    execute(
        store,
        "CREATE TABLE t (id int PRIMARY KEY, content text, embedding vector(2))",
        "INSERT INTO t SELECT i, repeat('x', 5000), '[1,2]' FROM generate_series(1, 2000) i",
    )
    id = store.catalog.describe("t").id
    where = "CASE WHEN id = 1900 THEN pg_terminate_backend(pg_backend_pid()) ELSE true END"
    with pytest.raises(UnreachableError, match="connection was lost"):
        store.reader.fetch(id, [str(i) for i in range(1, 2001)], vectors=True, where=where)
    assert store.reader.count(id) == 2000
    store.close()
