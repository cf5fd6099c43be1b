"""The files that stop a run without killing it: `pause` holds its requests, `hold` its swap."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from reembed.errors import HeldError
from reembed.manifest import Manifest
from reembed.manifest.urls import resolve_url
from reembed.run import events
from reembed.run.guards import HOLD_FILE, PAUSE_FILE, POLL_SECONDS, Pause, hold_notice
from reembed.run.vector_file import scan
from reembed.stages.estimate import TIMED_TEXTS
from reembed.stores.registry import open_store
from tests.support.chroma_data import chroma, names_in, plain_collection, records_of
from tests.support.commands import REEMBED, Calls, Command
from tests.support.crossing import crossed
from tests.support.following import follows_hint
from tests.support.manifests import migration, run_dir, write_manifest
from tests.support.servers.embedding_server import OPENAI, EmbeddingServer
from tests.support.texts import sentence, vector_of

RECORDS = 400
QUIET = 3 * POLL_SECONDS


def guard(path: Path, name: str, reason: str = "") -> Path:
    """Write a guard file of a manifest's migration."""
    folder = Manifest.load(path).state_dir
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(reason)
    return folder / name


@contextmanager
def begun(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A command in a process of its own, which does not outlive the block."""
    process = subprocess.Popen(
        [*REEMBED, *map(str, arguments), "--json"], env=os.environ.copy(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(condition: Callable[[], Any], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# Pause


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with EmbeddingServer(OPENAI) as server:
        server.slow = 0.05
        yield server


@pytest.fixture
def path(tmp_path: Path, server: EmbeddingServer) -> Path:
    """A migration of RECORDS texts in 100 requests or so."""
    with chroma(tmp_path / "db") as client:
        plain_collection(client, count=RECORDS)
    return write_manifest(
        tmp_path, f"chroma:{tmp_path / 'db'}", embed__concurrency=2, verify__sample=100,
        model={"provider": "openai", "name": "wordllama", "base_url": server.openai_url,
               "options": {"batch_items": 4}},
    )  # fmt: skip


def embedded(server: EmbeddingServer) -> int:
    """Records whose text was paid for."""
    return sum(server.served[sentence(number)] > 0 for number in range(RECORDS))


def cached(path: Path) -> int:
    """Texts in the cache of paid vectors."""
    (file,) = (Path(Manifest.load(path).state) / "cache").glob("*.vectors")
    fd = os.open(file, os.O_RDONLY)
    try:
        return sum(len(rows.tokens) for rows in scan(fd, 0, None).rows)
    finally:
        os.close(fd)


def test_a_pause_stops_requests_and_going_on_finishes(path: Path, server: EmbeddingServer) -> None:
    with begun("run", path) as process:
        wait_for(lambda: embedded(server) > 60)
        file = guard(path, PAUSE_FILE, "the provider is at its limit\nsecond line")
        time.sleep(1)  # what is in flight ends
        asked, paid = len(server.requests), embedded(server)
        assert paid < RECORDS
        time.sleep(QUIET)
        assert len(server.requests) == asked, "no request while it is paused"
        assert cached(path) == paid, "what was in flight is written"
        assert process.poll() is None
        other = subprocess.run([*REEMBED, "run", str(path)], capture_output=True, text=True)
        assert other.returncode == 6, "a paused run holds its lease"
        file.unlink()
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert json.loads(out)["state"] == "verified"
    assert embedded(server) == RECORDS
    told = [line for line in err.splitlines() if "pause" in line]
    assert len(told) == 2, err
    assert " paused, until the file is removed: " in told[0]
    assert str(file) in told[0]
    assert told[0].endswith(": the provider is at its limit")
    assert told[1].endswith(" the pause is over: going on")


@pytest.mark.parametrize(
    ("number", "when"), crossed([signal.SIGINT, signal.SIGTERM], ["export", "embed"])
)
def test_a_signal_ends_a_paused_run(
    path: Path, server: EmbeddingServer, number: signal.Signals, when: str
) -> None:
    if when == "export":
        file = guard(path, PAUSE_FILE)
    with begun("run", path) as process:
        if when == "embed":
            wait_for(lambda: embedded(server) > 60)
            file = guard(path, PAUSE_FILE)
        line = process.stderr.readline() if process.stderr else ""
        while "paused" not in line:
            assert line
            line = process.stderr.readline() if process.stderr else ""
        time.sleep(0.3)
        process.send_signal(number)
        sent = time.monotonic()
        out, err = process.communicate(timeout=60)
    assert time.monotonic() - sent < 8
    assert process.returncode == 130, err
    assert json.loads(out)["error"]["kind"] == "interrupted"
    assert "Traceback" not in err
    assert (embedded(server) <= TIMED_TEXTS) == (when == "export")
    file.unlink()
    result = migration(path).run(until="embed")
    assert result.state == "embedded"
    assert embedded(server) == RECORDS
    paid = sum(server.served[sentence(number)] for number in range(RECORDS))
    assert paid <= RECORDS + TIMED_TEXTS, "none but the plan's was paid for twice"


def test_a_pause_between_shards_of_any_stage(tmp_path: Path, database: Path) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}")
    file = guard(path, PAUSE_FILE)
    done = threading.Thread(target=lambda: migration(path).run())
    done.start()
    time.sleep(QUIET)
    run = run_dir(path)
    assert [event.event for event in run.history.read()] == ["run-created", "foretold", "census"]
    file.unlink()
    done.join(60)
    assert migration(path).status().state == "verified"


def test_a_move_is_not_paused(tmp_path: Path, database: Path) -> None:
    """Writers wait for the move, and a rollback is the emergency exit."""
    path = write_manifest(tmp_path, f"chroma:{database}")
    migration(path).run()
    guard(path, PAUSE_FILE)
    with chroma(database) as client:
        docs = client.get_collection("docs", embedding_function=None)
        docs.add(ids=["late"], documents=["late"], embeddings=[vector_of("old", "late")])
    assert migration(path).swap().caught_up == 1
    assert migration(path).rollback().done


def test_a_pause_is_told_once_however_many_wait(tmp_path: Path) -> None:
    told: list[str] = []
    pause, cancelled = Pause(tmp_path, told.append), threading.Event()
    file = tmp_path / PAUSE_FILE
    file.write_text("busy")
    pause.wait()  # outside of the block it is not looked at
    assert told == []
    with pause.obeyed():
        threads = [threading.Thread(target=pause.wait) for _ in range(5)]
        threads.append(threading.Thread(target=pause.wait, args=(cancelled,)))
        for thread in threads:
            thread.start()
        time.sleep(0.2)
        assert all(thread.is_alive() for thread in threads)
        cancelled.set()
        threads[-1].join(0.5 * POLL_SECONDS)
        assert not threads[-1].is_alive(), "one that is cancelled does not wait for the next look"
        file.unlink()
        for thread in threads:
            thread.join(3 * POLL_SECONDS)
            assert not thread.is_alive()
        assert [line.partition(":")[0] for line in told] == [
            "paused, until the file is removed", "the pause is over"
        ]  # fmt: skip
        file.write_text("again")
        thread = threading.Thread(target=pause.wait)
        thread.start()
        wait_for(lambda: len(told) == 3)
        file.unlink()
        thread.join(3 * POLL_SECONDS)
    assert len(told) == 4


# Hold


@follows_hint("Once whoever wrote the file agrees, remove it and run")
def test_a_held_swap_is_refused_and_swaps_once_it_is_let_go(
    tmp_path: Path, database: Path, command: Command
) -> None:
    path = write_manifest(
        tmp_path, f"chroma:{database}", swap__before=f"touch {tmp_path / 'hooked'}"
    )
    file = guard(path, HOLD_FILE, "release freeze until Monday, ask Ana\nno more")
    before = names_in(f"chroma:{database}")
    ended = command("run", path, "--swap", "--json")
    assert ended.code == 5
    error = ended.json["error"]
    assert error["kind"] == "held"
    assert str(file) in error["message"]
    assert error["message"].endswith(": release freeze until Monday, ask Ana")
    assert "remove it and run the same command again" in error["hint"]
    result = migration(path).status()
    assert result.state == "verified"
    assert result.verdict is not None
    assert result.verdict.passed, "everything up to the move is done"
    with chroma(database) as client:
        docs = client.get_collection("docs", embedding_function=None)
        docs.add(ids=["late"], documents=["late"], embeddings=[vector_of("old", "late")])
    with pytest.raises(HeldError):
        migration(path).swap()
    assert names_in(f"chroma:{database}").items() >= before.items()
    with chroma(database) as client:
        (shadow,) = (name for name in names_in(f"chroma:{database}") if name != "docs")
        loaded = client.get_collection(shadow, embedding_function=None)
        assert "late" in records_of(loaded), "it has caught up"
    assert not (tmp_path / "hooked").exists(), "the application was not told of a move"
    assert run_dir(path).history.all(events.SwapBegun) == []
    file.unlink()
    assert command("swap", path, "--yes", "--json").json["done"] is True
    assert (tmp_path / "hooked").exists()
    assert names_in(f"chroma:{database}")["docs"] != before["docs"]
    assert migration(path).status().state == "swapped"


def test_what_a_held_swap_carried_is_checked_before_the_move(
    tmp_path: Path, database: Path
) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}")
    migration(path).run()
    file = guard(path, HOLD_FILE)
    with chroma(database) as client:
        docs = client.get_collection("docs", embedding_function=None)
        docs.add(ids=["late"], documents=["late"], embeddings=[vector_of("old", "late")])
    with pytest.raises(HeldError, match="no reason given"):
        migration(path).swap()
    shadow = run_dir(path).history.require(events.ShadowCreated).id
    with closing(open_store(resolve_url(f"chroma:{database}", tmp_path))) as store:
        store.to_write().delete(shadow, ["late"])
    file.unlink()
    result = migration(path).swap()
    assert any("1 records that the shadow lacked" in message for message in result.messages)
    with chroma(database) as client:
        now = client.get_collection("docs", embedding_function=None)
        assert now.get(ids=["late"])["documents"] == ["late"]


@pytest.mark.parametrize("kind", ["config", "pointer"])
def test_every_kind_of_swap_is_held(tmp_path: Path, database: Path, kind: str) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}", swap__kind=kind)
    file = guard(path, HOLD_FILE)
    with pytest.raises(HeldError):
        migration(path).run(swap=True)
    file.unlink()
    assert migration(path).run(swap=True).state == "swapped"


def test_a_rollback_is_not_held(tmp_path: Path, database: Path) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}")
    migration(path).run(swap=True)
    file = guard(path, HOLD_FILE, "freeze")
    assert migration(path).rollback().done
    with pytest.raises(HeldError):
        migration(path).swap()
    file.unlink()
    assert migration(path).swap().done


def test_a_dry_run_a_plan_and_the_status_tell_what_is_in_force(
    tmp_path: Path, database: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}")
    hold = guard(path, HOLD_FILE, "freeze")
    assert any("a hold is in force" in message for message in migration(path).status().messages)
    assert any("freeze" in warning.message for warning in migration(path).plan().warnings)
    assert migration(path).plan().ok, "a run may go on until the move"
    migration(path).run()
    pause = guard(path, PAUSE_FILE, "lunch")
    messages = " ".join(migration(path).status().messages)
    assert f"a pause is in force: {pause}" in messages
    assert f"a hold is in force, so nothing will be swapped: {hold}" in messages
    assert "lunch" in command("status", path).out
    assert "freeze" in command("swap", path).out, "without --yes, it says what would stop it"
    monkeypatch.chdir(tmp_path)
    (found,) = command("status", "--json").json["migrations"]
    assert len([message for message in found["messages"] if "in force" in message]) == 2
    for file in (hold, pause):
        file.unlink()
    assert not any("in force" in message for message in migration(path).status().messages)


def test_a_guard_file_holds_whatever_it_is(tmp_path: Path) -> None:
    file = tmp_path / HOLD_FILE
    assert hold_notice(tmp_path) is None
    file.write_bytes(b"\x1b[31mred\x07 \xff wait\nsecond")
    notice = hold_notice(tmp_path)
    assert notice is not None
    assert notice.reason == "[31mred \ufffd wait", "nothing that a terminal obeys"
    assert notice.owner in str(notice)
    file.write_text("long " * 1_000)
    notice = hold_notice(tmp_path)
    assert notice is not None
    assert len(notice.reason) <= 200
    file.unlink()
    file.mkdir()
    assert "no reason given" in str(hold_notice(tmp_path))
    file.rmdir()
    os.mkfifo(file)
    assert "no reason given" in str(hold_notice(tmp_path)), "a pipe is not waited for"
    file.unlink()
    file.symlink_to(tmp_path / "nowhere")
    assert "no reason given" in str(hold_notice(tmp_path))


def test_a_move_that_was_begun_is_finished_in_spite_of_a_hold(
    tmp_path: Path, database: Path, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a move is worse than one too many."""
    from reembed.cutover import move

    path = write_manifest(tmp_path, f"chroma:{database}")
    migration(path).run()

    def die(*_: object) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(move, "finish_move", die)
        migration(path).swap()
    assert migration(path).status().state == "swapping"
    guard(path, HOLD_FILE)
    assert migration(path).swap().done
