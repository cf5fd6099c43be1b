"""The soak campaigns in short: some kills of each kind, and half a minute of writers.

`make soak` runs them long; docs/soak.md has the numbers.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from reembed import live
from reembed.cutover.move import release_writes, writes_held
from reembed.run import events
from reembed.stages.embed import embed_shards
from reembed.stages.session import Session
from reembed.stores.registry import open_store
from reembed.sync import follow
from tests.support.chroma_data import chroma, names_in, plain_collection, records_of
from tests.support.commands import Calls
from tests.support.manifests import migration, run_dir, write_manifest
from tests.support.texts import ROOT, vector_of

pytestmark = pytest.mark.timeout(1200)  # a campaign has a machine to itself, or a tenth of one


def soak(*arguments: str) -> str:
    """The last lines of a campaign, which must pass."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=ROOT, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_kills_anywhere_leave_no_trace() -> None:
    """Of the other kind of swap there are some in `tests/unit/migration/test_migration.py`."""
    told = soak("tests.campaigns.soak.crash", "--kills", "3", "--seed", "41", "--kind", "pointer")
    assert told.endswith("3 passed, 0 failed\n")


@pytest.mark.long
@pytest.mark.parametrize("kind", ["transaction", "pointer"])
def test_sixty_collections_killed_at_random_come_through(kind: str) -> None:
    changes = ["--changes"] if kind == "transaction" else []
    told = soak("tests.campaigns.soak.many", "--kills", "40", "--kind", kind, *changes)
    assert told.endswith("0 problems\n")


@pytest.mark.long
def test_sixty_collections_of_a_server_killed_at_random_come_through() -> None:
    told = soak(
        "tests.campaigns.soak.many", "--kills", "40", "--kind", "rename", "--http", "--changes"
    )
    assert told.endswith("0 problems\n")


@pytest.mark.long
def test_a_thousand_collections_killed_at_random_come_through() -> None:
    told = soak("tests.campaigns.soak.many", "--collections", "1000", "--kills", "10")
    assert told.endswith("0 problems\n")


@pytest.mark.long
@pytest.mark.parametrize("where", [[], ["--postgres"]], ids=["chroma", "postgres"])
def test_nights_that_are_killed_lose_no_backup(where: list[str]) -> None:
    """Every run kills some of them: `tests/stories/test_backup_kills.py`."""
    told = soak("tests.campaigns.soak.nights", "--kills", "16", *where)
    assert told.endswith("16 passed, 0 failed\n")


@pytest.mark.slow
def test_writers_lose_nothing() -> None:
    told = soak(
        "tests.campaigns.soak.writers", "--seconds", "3", "--rate", "30", "--kind", "pointer"
    )
    assert told.endswith("0 lost\n")


@pytest.mark.slow
def test_without_catch_up_rows_are_lost_and_told() -> None:
    told = soak(
        "tests.campaigns.soak.writers", "--seconds", "3", "--rate", "40", "--without-catch-up"
    )
    assert told.endswith("and verify says so\n")


@pytest.mark.slow
def test_kills_anywhere_in_postgres_leave_no_trace() -> None:
    """`tests/stores/postgres/test_pg_locks.py` kills the moves of both kinds."""
    told = soak(
        "tests.campaigns.soak.crash", "--postgres", "--kills", "2", "--seed", "42", "--kind",
        "columns",
    )  # fmt: skip
    assert told.endswith("2 passed, 0 failed\n")


@pytest.mark.slow
@pytest.mark.parametrize("way", [[], pytest.param(["--columns"], marks=pytest.mark.long)])
def test_writers_in_postgres_lose_nothing(way: list[str]) -> None:
    told = soak("tests.campaigns.soak.pg_writers", "--seconds", "4", *way)
    assert told.endswith("nothing is left behind\n0 lost, 0 extra, 0 stale\n")


@pytest.mark.long
def test_captured_writes_read_by_number_are_lost_and_told() -> None:
    told = soak("tests.campaigns.soak.pg_writers", "--seconds", "12", "--watermark")
    assert told.endswith("and verify says so\n")


def test_writers_wait_while_the_name_moves(tmp_path: Path, database: Path) -> None:
    url = f"chroma:{database}"
    path = write_manifest(tmp_path, url)
    migration(path).run()
    store, run = open_store(url), run_dir(path)
    written = threading.Event()
    with live.open(url, "docs") as docs:

        def write() -> None:
            docs.add(ids=["held"], documents=["x"], embeddings=[vector_of("old", "x").tolist()])
            written.set()

        with writes_held(store, run, "docs", ""):
            assert "docs__hold" in names_in(url)
            assert docs.count() == 40, "reading goes on"
            writer = threading.Thread(target=write)
            writer.start()
            assert not written.wait(0.3)
        assert written.wait(10)
        writer.join()
    assert "docs__hold" not in names_in(url)
    store.close()


def test_a_hold_ends_by_itself_and_with_the_next_command(tmp_path: Path, database: Path) -> None:
    url = f"chroma:{database}"
    path = write_manifest(tmp_path, url)
    migration(path).run()
    store, run = open_store(url), run_dir(path)
    run.history.record(events.WritesHeld())  # and killed
    assert store.to_move().hold_writes({"docs": ""}, 0.5)
    with live.open(url, "docs") as docs:
        start = time.monotonic()
        docs.delete(ids=["r1"])
        assert 0.2 < time.monotonic() - start < 10
    assert "docs__hold" in names_in(url)
    migration(path).run()
    assert "docs__hold" not in names_in(url)
    release_writes(store, run, "docs")
    assert run.history.all(events.WritesReleased), "noted, so that it is not done again"
    store.close()


def test_somebody_elses_collection_is_no_hold(tmp_path: Path, database: Path) -> None:
    with chroma(database) as client:
        plain_collection(client, "docs__hold", 2)
    path = write_manifest(tmp_path, f"chroma:{database}")
    assert migration(path).run(swap=True).state == "swapped"
    with chroma(database) as client:
        assert client.get_collection("docs__hold", embedding_function=None).count() == 2


def test_a_sweep_looks_again_before_it_writes(
    tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The application writes to the live collection while the sweep embeds."""
    path = write_manifest(tmp_path, f"chroma:{database}")
    migration(path).run()
    with chroma(database) as client:
        old = client.get_collection("docs", embedding_function=None)
        migration(path).swap()
        new = client.get_collection("docs", embedding_function=None)
        for id in ("r1", "r2", "r3"):
            old.update(ids=[id], documents=["old side"], embeddings=[vector_of("old", "x")])

        def meanwhile(s: Session) -> None:
            embed_shards(s)
            new.update(ids=["r1"], documents=["new side"], embeddings=[vector_of("new", "y")])
            new.delete(ids=["r2"])

        monkeypatch.setattr(follow, "embed_shards", meanwhile)
        result = migration(path).sweep()
        assert result.conflicts == ["r1", "r2"]
        records = records_of(new)
        assert records["r1"][0] == "new side"
        assert "r2" not in records
        assert records["r3"][0] == "old side"


def test_what_is_written_while_rows_go_back_goes_back_too(
    tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}")
    migration(path).run(swap=True)
    with chroma(database) as client:
        new = client.get_collection("docs", embedding_function=None)
        new.update(ids=["r1"], documents=["first"], embeddings=[vector_of("new", "first")])
        from reembed.sync.carry_back import WayBack

        old_vectors = WayBack._old_vectors
        told = list[object]()

        def meanwhile(self: WayBack, rows: Any) -> object:
            if not told:
                new.update(ids=["r1"], documents=["then"], embeddings=[vector_of("new", "then")])
            told.append(rows)
            return old_vectors(self, rows)

        monkeypatch.setattr(WayBack, "_old_vectors", meanwhile)
        assert migration(path).rollback().done
        records = records_of(client.get_collection("docs", embedding_function=None))
    assert records["r1"][0] == "then"


def test_a_rollback_that_was_stopped_pays_for_no_text_again(
    tmp_path: Path, database: Path, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}")
    migration(path).run(swap=True)
    with chroma(database) as client:
        new = client.get_collection("docs", embedding_function=None)
        new.update(ids=["r1"], documents=["paid"], embeddings=[vector_of("new", "paid")])
    with monkeypatch.context() as patch:
        patch.setattr("reembed.stores.chroma.writer.ChromaWriter.write", _stopped)
        with pytest.raises(KeyboardInterrupt):
            migration(path).rollback()
    assert migration(path).rollback().caught_up == 1
    assert calls.of("old", "paid") == 1


def _stopped(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_rollback_stopped_after_the_move_is_finished_by_the_same_command(
    tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "after.txt"
    path = write_manifest(
        tmp_path, f"chroma:{database}", swap__after=f"echo $REEMBED_ACTION >> {told}"
    )
    migration(path).run(swap=True)
    with monkeypatch.context() as patch:
        patch.setattr("reembed.sync.carry_back.WayBack.carry_late", _stopped)
        with pytest.raises(KeyboardInterrupt):
            migration(path).rollback()
    assert told.read_text() == "swap\n"
    assert migration(path).rollback().done
    assert told.read_text() == "swap\nrollback\n"
    assert migration(path).rollback().messages == ["already rolled back"]
    assert told.read_text() == "swap\nrollback\n"


def test_rollback_names_what_both_collections_changed(tmp_path: Path, database: Path) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}")
    migration(path).run()
    with chroma(database) as client:
        old = client.get_collection("docs", embedding_function=None)
        migration(path).swap()
        new = client.get_collection("docs", embedding_function=None)
        for id in ("r1", "r2"):
            old.update(ids=[id], documents=["old side"], embeddings=[vector_of("old", "x")])
        new.update(ids=["r1"], documents=["new side"], embeddings=[vector_of("new", "y")])
        assert migration(path).rollback().conflicts == ["r1"]
        records = records_of(client.get_collection("docs", embedding_function=None))
    assert (records["r1"][0], records["r2"][0]) == ("new side", "old side")
