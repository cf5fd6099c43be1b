"""What others do to a Chroma database, a lease or a process of ours in the middle of a command:
what is said of it is done, and the same command goes on."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from chromadb.api.client import Client
from chromadb.api.models.Collection import Collection as ChromaCollection

from reembed.stores.chroma import move as chroma_move
from reembed.stores.chroma import sqlite as chroma_sqlite
from reembed.stores.chroma.pointer import name_of
from reembed.stores.chroma.sqlite_process import beside
from reembed.stores.collection import Collection
from reembed.stores.lease.lease import StoreLease
from reembed.stores.registry import open_store
from tests.support.chroma_data import chroma, names_in, records_of
from tests.support.commands import Command
from tests.support.following import follows_hint
from tests.support.manifests import write_manifest

Patch = pytest.MonkeyPatch


def once(patch: Patch, place: Any, name: str, act: Callable[[], object]) -> None:
    """Somebody does this just before our process calls a function, the first time."""
    function = getattr(place, name)

    def called(*given: Any, **more: Any) -> Any:
        patch.setattr(place, name, function)
        act()
        return function(*given, **more)

    patch.setattr(place, name, called)


def refused(command: Command, path: Path, hint: str, words: str = "swap --yes") -> str:
    done = command(*words.split(), path, "--json")
    assert done.code in (2, 5, 6, 7), done.out[:500]
    told = str(done.json["error"]["hint"])
    assert hint in told, done.out[:900]
    return told


def served(database: Path) -> int:
    """How many records the application finds."""
    with chroma(database) as client:
        return len(records_of(client.get_collection("docs", embedding_function=None)))


@follows_hint(
    "Nothing was moved. Give the old one its name again, and run the same command again.",
    where="stores/chroma/sqlite_calls.py",
    elsewhere=True,
)
@follows_hint("` to ", where="cutover/restart.py")
def test_a_collection_that_gets_the_live_name_just_before_the_move(
    tmp_path: Path, database: Path, command: Command, monkeypatch: Patch
) -> None:
    with chroma(database) as client:
        client.create_collection("other", embedding_function=None)

    def rename(*pairs: tuple[str, str]) -> None:
        with closing(sqlite3.connect(database / "chroma.sqlite3")) as connection:
            for old, new in pairs:
                connection.execute("UPDATE collections SET name = ? WHERE name = ?", (new, old))
            connection.commit()

    path = write_manifest(tmp_path, f"chroma:{database}")
    assert command("run", path).code == 0
    once(monkeypatch, chroma_sqlite, "exchange",
         lambda: rename(("docs", "mine"), ("other", "docs")))  # fmt: skip
    refused(command, path, "Nothing was moved. Give the old one its name again")
    hint = refused(command, path, "` to make the live name", "run --restart")
    (typed,) = re.findall(r"`reembed ([^`]+)`", hint)
    rename(("docs", "other"), ("mine", "docs"))
    assert command(*typed.split()).code == 0
    assert served(database) == 40


@follows_hint("Stop the application that creates it, and run again.")
def test_an_application_that_creates_the_name_all_the_time(
    tmp_path: Path, database: Path, command: Command, monkeypatch: Patch
) -> None:
    path = write_manifest(
        tmp_path, f"chroma:{database}", swap__kind="rename", swap__accept_window=True
    )
    assert command("run", path).code == 0
    modify = ChromaCollection.modify

    def made_first(self: ChromaCollection, name: str | None = None, **more: Any) -> None:
        if name == "docs":
            self._client.create_collection("docs")
        modify(self, name=name, **more)

    with monkeypatch.context() as patch:
        patch.setattr(chroma_move, "_TRIES", 2)
        patch.setattr(ChromaCollection, "modify", made_first)
        refused(command, path, "Stop the application that creates it, and run again.")
    assert command("swap", path, "--yes").code == 0
    assert served(database) == 40


@follows_hint("Find what makes it, and run the same command again.")
def test_a_pointer_that_others_make_and_delete(
    tmp_path: Path, database: Path, command: Command, monkeypatch: Patch
) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}", swap__kind="pointer")
    assert command("run", path).code == 0
    create, gone = Client.create_collection, list[str]()

    def created(self: Client, name: str, *given: Any, **more: Any) -> Any:
        if name == name_of("docs"):
            create(self, name)
            try:
                return create(self, name, *given, **more)
            finally:
                gone.append(name)
                self.delete_collection(name)
        return create(self, name, *given, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Client, "create_collection", created)
        refused(command, path, "Find what makes it, and run the same command again.")
    assert len(gone) > 1
    assert command("swap", path, "--yes").code == 0


@follows_hint("Run the same command again: it resumes. Where it ends every time, look for a limit")
def test_the_process_that_reads_the_file_is_killed(
    tmp_path: Path, database: Path, command: Command, monkeypatch: Patch
) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}")

    chroma_sqlite.migrations(database)  # it runs from now on
    process = beside._process
    assert process is not None

    def kill() -> None:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()

    once(monkeypatch, type(beside), "_send",
         lambda: os.kill(process.pid, signal.SIGSTOP))  # fmt: skip
    once(monkeypatch, type(beside), "_receive", kill)
    refused(command, path, "Run the same command again: it resumes.", "run")
    assert command("run", path).code == 0


@pytest.fixture
def other(database: Path) -> Iterator[StoreLease]:
    """The lease of another run."""
    store = open_store(f"chroma:{database}")
    lease = StoreLease(store, "docs", "theirs", "their-run")
    yield lease
    lease.release()
    store.close()


@follows_hint("Wait until it ends, or stop it; running again then", where="stores/lease/lease.py")
def test_another_run_that_has_the_lease_is_waited_for(
    tmp_path: Path, database: Path, command: Command, other: StoreLease
) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}")
    other.acquire()
    refused(command, path, "Wait until it ends, or stop it", "run")
    other.release()
    assert command("run", path).code == 0


@follows_hint("Wait until that run ends, then run again: what this one did is kept.")
def test_another_run_that_takes_the_lease_away_is_waited_for(
    tmp_path: Path, database: Path, command: Command, other: StoreLease, monkeypatch: Patch
) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}")

    def take() -> None:
        claims = other._claims
        standing = claims.claim("docs", "mine")
        assert standing is not None
        claims.unclaim("docs", standing)
        other.acquire()

    once(monkeypatch, Collection, "list_ids", take)
    refused(command, path, "Wait until that run ends, then run again", "run")
    other.release()
    assert command("run", path, "--swap").code == 0
    assert any("parked" in name for name in names_in(f"chroma:{database}"))
