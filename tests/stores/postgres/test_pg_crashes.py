"""A server that crashes takes the end of what was committed with it, where nobody waited for the
disk: nothing of ours that counts as done, and what is an application's is noticed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from reembed.errors import UnreachableError
from reembed.stores.postgres import client
from reembed.stores.postgres.boundary import part_told
from reembed.stores.postgres.catalog import Catalog
from reembed.stores.postgres.move import copying as copying_module
from reembed.stores.postgres.move.columns import add_columns
from reembed.stores.postgres.move.copying import Copying, copy_all, copy_touched
from reembed.stores.registry import open_store
from reembed.stores.values import StoreOptions
from tests.campaigns.soak.pg_stage import UNFLUSHED
from tests.support.manifests import migration, run_dir
from tests.support.pg_docs import app, make_docs, pg_manifest
from tests.support.servers.postgres_server import PostgresServer, postgres_server


@pytest.fixture(scope="module")
def fragile() -> Iterator[PostgresServer]:
    """A server that writes nothing to the disk for which nobody waits."""
    with postgres_server(**UNFLUSHED) as server:
        yield server


def copies(url: str) -> int:
    with app(url) as docs:
        return int(docs.run("SELECT count(reembed_incoming) FROM docs")[0][0])


@pytest.mark.long
@pytest.mark.parametrize("waits", [True, False])
def test_what_counts_as_copied_is_on_the_disk(
    fragile: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits: bool
) -> None:
    """Without the wait, which shows that the server does lose something."""
    url = fragile.url(fragile.new_database())
    make_docs(url, 40, "CREATE VIEW titles AS SELECT id FROM docs")
    path = pg_manifest(tmp_path, url)
    migration(path).run()
    if not waits:
        monkeypatch.setattr(copying_module, "_flush", lambda *_: None)
    monkeypatch.setattr(client, "QUIET_SECONDS", 0.0)
    with closing(Catalog(url, StoreOptions())) as catalog:
        names = ("docs", run_dir(path).history.shadow_name)
        old, new = (catalog.tables_of_name(name)[0] for name in names)
        add_columns(catalog.main, [(old, new)])
        copying = Copying(old, new)
        copy_all(catalog.main, copying)
        fragile.crash()
        assert (copies(url) == 40) == waits
        if not waits:
            return
        with app(url) as docs:
            docs.run("UPDATE docs SET reembed_incoming = NULL WHERE id < 10")
        copying.touched.update(map(str, range(1, 10)))
        assert copy_touched(catalog.main, copying) == 9
        fragile.crash()
        assert copies(url) == 40


@pytest.mark.long
def test_all_rows_are_compared_anew_after_a_crash(
    fragile: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the log told may be gone, with the writes and with its numbers."""
    url = fragile.url(fragile.new_database())
    make_docs(url, 5)
    monkeypatch.setattr(client, "QUIET_SECONDS", 0.0)
    with closing(open_store(url)) as store, app(url, synchronous_commit="off") as docs:
        id = store.catalog.describe("docs").id
        assert store.capture and store.changes
        store.capture.start(id)
        mark = store.changes.since(id, None).mark
        docs.annotate(3, "seen, and then lost")
        assert store.changes.since(id, mark).ids == ["3"]
        fragile.crash()
        found = store.changes.since(id, mark)
        assert found.ids is None and found.mark not in (None, mark)
        assert store.changes.since(id, found.mark).ids == []
    with app(url) as docs:
        assert docs.run("SELECT meta->>'note' FROM docs WHERE id = 3") == [(None,)]


def test_no_error_of_psycopg_leaves_the_store() -> None:
    class Part:
        @property
        def answer(self) -> int:
            raise psycopg.OperationalError("gone")

        def one(self) -> int:
            raise psycopg.OperationalError("gone")

        def many(self) -> Iterator[int]:
            yield 1
            raise psycopg.OperationalError("gone")

    part = part_told(Part(), "here")
    many = part.many()
    assert next(many) == 1
    for ask in (lambda: part.answer, part.one, lambda: next(many)):
        with pytest.raises(UnreachableError, match="here: the connection was lost: gone"):
            ask()
