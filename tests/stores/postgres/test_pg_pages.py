"""Pages read ahead in a snapshot: the right rows whatever is asked for, and errors as they are."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import psycopg
import pytest

from reembed.errors import ReembedError, UnreachableError
from reembed.stores.postgres.copy import reading as pg_reading
from reembed.stores.postgres.copy import rows as pg_rows
from reembed.stores.registry import open_store
from reembed.stores.store import Store

ROWS = 60


@pytest.fixture
def store(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A table of 12 MB, read in blocks of one row: more than a socket holds."""
    monkeypatch.setattr(pg_reading, "BLOCK_BYTES", 1)
    with psycopg.connect(postgres_url) as connection:
        connection.execute(
            "CREATE TABLE t (id bigint PRIMARY KEY, content text STORAGE EXTERNAL, "
            "embedding vector(2))"
        )
        connection.execute(
            "INSERT INTO t SELECT n, n || repeat('x', 200000), ARRAY[n, 1]::vector FROM "
            "generate_series(0, %s) n",
            [ROWS - 1],
        )
    opened = open_store(postgres_url)
    yield opened
    opened.close()


def some(first: int, last: int) -> list[str]:
    return [str(n) for n in range(first, last)]


def page(store: Store, ids: list[str], then: list[str] | None = None) -> list[str]:
    """The ids of a page that is read, each of which has its own text and vector."""
    assert store.many is not None
    id = store.catalog.describe("t").id
    rows = store.many(id, ids, vectors=True, then=then or []).to_pylist()
    for row in rows:
        assert row["document"].rstrip("x") == row["id"]
        assert row["embedding"] == [float(row["id"]), 1.0]
    return [row["id"] for row in rows]


def test_pages_are_what_was_asked_for(store: Store) -> None:
    id, snapshot = store.catalog.describe("t").id, store.snapshot
    assert snapshot is not None
    with snapshot():
        assert page(store, some(0, 20), some(20, 40)) == some(0, 20)
        assert page(store, some(20, 40), some(0, 5)) == some(20, 40)
        # Another page than was announced, in another order and with ids that cannot be or are gone.
        assert page(store, ["7", "no", "900", "3"], some(40, 50)) == ["7", "3"]
        # Another question between two pages.
        assert len(store.reader.fetch(id, some(0, 3), vectors=False)) == 3
        assert page(store, some(40, 50), some(50, 60)) == some(40, 50)
        assert [len(ids) for ids in store.reader.list_ids(id)] == [ROWS]
        assert page(store, some(50, 60), ["none"]) == some(50, 60)
        assert page(store, ["none"]) == []
    assert page(store, some(0, 2), some(2, 4)) == some(0, 2)  # without a snapshot


def test_pages_are_as_of_the_snapshot(store: Store, postgres_url: str) -> None:
    assert store.snapshot is not None
    with store.snapshot():
        page(store, some(0, 1), some(1, 2))
        with psycopg.connect(postgres_url) as connection:
            connection.execute("UPDATE t SET content = 'late'")
        assert page(store, some(1, 2), some(2, 3)) == ["1"]
        assert page(store, some(2, 3)) == ["2"]


def test_a_page_left_alone_holds_nobody_up(store: Store) -> None:
    assert store.snapshot is not None
    with pytest.raises(ZeroDivisionError), store.snapshot():
        page(store, some(0, 1), some(1, 50))
        raise ZeroDivisionError
    assert page(store, some(0, 2)) == some(0, 2)


@pytest.mark.parametrize("snapshot", [True, False])
def test_a_page_that_is_interrupted_holds_nobody_up(
    store: Store, monkeypatch: pytest.MonkeyPatch, snapshot: bool
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    assert store.snapshot is not None
    reading = store.snapshot() if snapshot else contextlib.nullcontext()
    with pytest.raises(KeyboardInterrupt), reading, monkeypatch.context() as patched:
        patched.setattr(pg_rows, "export_batch", interrupt)
        page(store, some(0, 40), some(40, ROWS))
    assert page(store, some(0, 2)) == some(0, 2)


@pytest.mark.parametrize("how", ["cancel", "terminate"])
def test_what_ends_a_page_on_its_way_is_told(store: Store, postgres_url: str, how: str) -> None:
    assert store.snapshot is not None
    with pytest.raises(ReembedError) as raised, store.snapshot():
        page(store, some(0, 1), some(1, ROWS))
        with psycopg.connect(postgres_url) as connection:
            ended = connection.execute(
                f"SELECT pg_{how}_backend(pid) FROM pg_stat_activity WHERE query LIKE 'COPY%' AND "
                "state = 'active' AND datname = current_database()".encode()
            ).fetchall()
        assert ended == [(True,)]
        page(store, some(1, ROWS))
    assert isinstance(raised.value, UnreachableError)
    said = "canceling statement due to user request" if how == "cancel" else "connection was lost"
    assert said in raised.value.message
    assert page(store, some(0, 2)) == some(0, 2)
