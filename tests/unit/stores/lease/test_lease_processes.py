"""Runs of two state directories on one live name, as processes: one works, the other is told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from reembed.errors import PreflightError
from reembed.run import events
from reembed.stores.lease.owner import Owner
from reembed.stores.registry import open_store
from tests.support.chroma_data import chroma_at, names_in, plain_collection
from tests.support.commands import Command
from tests.support.manifests import migration, run_dir, write_manifest
from tests.support.servers.chroma_server import ChromaServer

STALE_SECONDS = 2.0
"""A heartbeat younger than this is refused at once."""
QUICK = f"""
import reembed.stores.lease.lease as lease
lease.RENEW_SECONDS, lease.VALID_SECONDS = 0.2, 0.5
lease.WATCH_SECONDS, lease.STALE_SECONDS = 1.5, {STALE_SECONDS}
from reembed.cli.entry import main
main()
"""
"""The command line, with a lease that is lost within seconds."""
NAME = "leased"
LEASE = f"{NAME}__lease"


@pytest.fixture(params=["path", "http"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A store with the collection `leased`."""
    if request.param == "path":
        where = f"chroma:{tmp_path / 'db'}"
        with chroma_at(where) as client:
            plain_collection(client, NAME)
        yield where
    else:
        yield from served(request.getfixturevalue("chroma_server"))


@pytest.fixture
def served_url(chroma_server: ChromaServer) -> Iterator[str]:
    yield from served(chroma_server)


def served(server: ChromaServer) -> Iterator[str]:
    with chroma_at(server.url) as client:
        plain_collection(client, NAME)
    yield server.url
    with chroma_at(server.url) as client:
        for found in client.list_collections():
            if found.name.startswith(NAME):
                client.delete_collection(found.name)


def manifest(folder: Path, url: str, **changes: Any) -> Path:
    """A manifest with a state directory of its own."""
    folder.mkdir()
    settings: dict[str, Any] = {
        "name": folder.name, "source__collection": NAME, "swap__kind": "rename",
        "swap__accept_window": True, "model__options": {"batch_items": 4}, "embed__concurrency": 1,
        "target__collection": f"{NAME}-{folder.name}", "verify__margin": 0.5,
    }  # fmt: skip
    return write_manifest(folder, url, **settings | changes)


@contextmanager
def begun(path: Path, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A command that is at work; killed at the end of the block if it still is."""
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", QUICK, *arguments, str(path), "--json"],
        env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def ended(process: subprocess.Popen[str]) -> tuple[int, Any]:
    out, err = process.communicate(timeout=90)
    assert "Traceback" not in err, err
    return process.returncode, json.loads(out)


def stop(process: subprocess.Popen[str]) -> None:
    """Stop a process until SIGCONT, and wait until its last heartbeat is stale."""
    process.send_signal(signal.SIGSTOP)
    time.sleep(STALE_SECONDS + 0.1)


def exported(path: Path) -> bool:
    """Whether the run has a shard, and is about to embed it."""
    return any("stage-done" in one.read_text() for one in path.parent.rglob("journal.jsonl"))


def test_one_works_the_other_is_told_who_and_follows_when_that_one_dies(
    command: Command, tmp_path: Path, url: str
) -> None:
    first, second = manifest(tmp_path / "first", url), manifest(tmp_path / "second", url)
    with begun(first, "run", REEMBED_TEST_SECONDS="0.5") as process:
        wait_for(lambda: exported(first), process)
        time.sleep(0.5)  # the heartbeat after the run got its name
        for arguments in (["run"], ["run", "--swap"]):
            outcome = command(*arguments, second, "--json")
            assert outcome.code == 6
            error = outcome.json["error"]
            assert error["kind"] == "locked"
            for part in (f"pid {process.pid}", "manifest first", run_dir(first).run_id, NAME):
                assert part in error["message"]
        assert not list(second.parent.glob(".reembed/second/2*")), "no run was begun"
        assert command("plan", second, "--json").code == 0, "looking is free"
        assert LEASE in names_in(url)
        process.kill()
        process.communicate()
    assert LEASE in names_in(url), "nobody was left to give it back"
    began = time.monotonic()
    assert command("run", second, "--until", "load", "--json").code == 0
    assert time.monotonic() - began < 30, "a process of this machine is known to be dead"
    assert not {name for name in names_in(url) if name.startswith(LEASE)}
    assert command("run", first, "--until", "load", "--json").code == 0, "and it resumes"
    kept = {name for name in names_in(url) if name.startswith(NAME)}
    assert kept == {NAME, f"{NAME}-first", f"{NAME}-second"}


def test_who_stood_still_while_embedding_writes_nothing_more(
    tmp_path: Path, served_url: str
) -> None:
    frozen, other = (
        manifest(tmp_path / "frozen", served_url),
        manifest(tmp_path / "other", served_url),
    )
    with begun(frozen, "run", REEMBED_TEST_SECONDS="0.5") as process:
        wait_for(lambda: exported(frozen), process)
        stop(process)
        with begun(other, "run", "--until", "load") as second:
            code, result = ended(second)
        assert code == 0, result
        before = names_in(served_url)
        assert f"{NAME}-other" in before
        process.send_signal(signal.SIGCONT)
        code, result = ended(process)
    assert code == 6
    assert "the lease on 'leased' was taken away" in result["error"]["message"]
    assert names_in(served_url) == before, "no shadow, no lease"


@pytest.mark.long
def test_who_stood_still_before_the_move_does_not_move(tmp_path: Path, served_url: str) -> None:
    """Its hook `before` takes long, it is stopped meanwhile, and another run swaps."""
    reached, go = tmp_path / "reached", tmp_path / "go"
    hook = f"touch {reached}; while [ ! -e {go} ]; do sleep 0.05; done"
    frozen = manifest(tmp_path / "frozen", served_url, swap__before=hook)
    other = manifest(tmp_path / "other", served_url)
    assert migration(frozen).run().state == "verified"
    with begun(frozen, "swap", "--yes") as process:
        wait_for(reached.exists, process)
        stop(process)
        with begun(other, "run", "--swap") as second:
            code, result = ended(second)
        assert code == 0, result
        before = names_in(served_url)
        assert before[NAME] == run_dir(other).history.shadow_id
        go.touch()
        process.send_signal(signal.SIGCONT)
        code, result = ended(process)
    assert code == 6, result
    assert "lease" in result["error"]["message"]
    assert names_in(served_url) == before, "the live name leads where the other run moved it"
    assert not run_dir(frozen).history.all(events.SwapDone)


def test_a_source_that_keeps_no_lease_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    """It may only be read: with another target the run goes on, else it is refused."""
    source, target = (f"chroma:{tmp_path / name}" for name in ("source", "target"))
    for where, count in ((source, 40), (target, 0)):
        with chroma_at(where) as client:
            plain_collection(client, NAME, count)
    path = manifest(
        tmp_path / "away", source, target__url=target, swap__kind="config", verify__margin=0.5
    )
    warnings = " ".join(problem.message for problem in migration(path).plan().warnings)
    assert "the lease is kept beside the live name" in warnings
    monkeypatch.setattr("reembed.stores.chroma.claims.ChromaClaims.claim", _refused)
    outcome = command("run", path, "--until", "load", "--json")
    assert outcome.code == 0, outcome.out
    assert "keeps no lease (access refused)" in outcome.err
    assert f"{NAME}-away" in names_in(target)
    here = manifest(tmp_path / "here", source)
    outcome = command("run", here, "--json")
    assert outcome.code == 5
    assert outcome.json["error"]["message"] == "access refused"


def _refused(*_: object) -> None:
    raise PreflightError("access refused")


def test_somebody_elses_collection_is_no_lease(
    tmp_path: Path, database: Path, command: Command
) -> None:
    with chroma_at(f"chroma:{database}") as client:
        plain_collection(client, "docs__lease", 2)
    path = write_manifest(tmp_path, f"chroma:{database}")
    outcome = command("run", path, "--json")
    assert outcome.code == 5
    assert "docs__lease" in outcome.json["error"]["message"]
    assert "Rename" in outcome.json["error"]["hint"]
    assert names_in(f"chroma:{database}").keys() == {"docs", "docs__lease"}


def test_what_a_killed_takeover_left_is_removed(tmp_path: Path, database: Path) -> None:
    url = f"chroma:{database}"
    with chroma_at(url) as client:
        left = client.create_collection(
            "left", metadata={"reembed:lease": 1, "claim": "dead"}, embedding_function=None
        )
        left.modify(name=f"docs__lease-{left.id}")
        client.create_collection(f"docs__lease-{uuid4()}", embedding_function=None)
    path = write_manifest(tmp_path, url)
    migration(path).run(until="export")
    assert len([name for name in names_in(url) if "__lease" in name]) == 1, "somebody's own stays"


@pytest.mark.parametrize("standing", [True, False])
def test_a_takeover_that_was_killed_is_followed_too(
    tmp_path: Path, database: Path, standing: bool
) -> None:
    """Before or after the old claim was removed."""
    url = f"chroma:{database}"
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    dead = replace(Owner.this_process("dead"), pid=process.pid)
    with chroma_at(url) as client:
        for place in ("docs__lease-next", "docs__lease") if standing else ("docs__lease-next",):
            claim = replace(dead, token=place).to_text()
            metadata: Any = {"reembed:lease": 1, "claim": claim}
            client.create_collection(place, metadata=metadata, embedding_function=None)
    migration(write_manifest(tmp_path, url)).run(until="export")
    assert names_in(url).keys() == {"docs"}


def test_a_command_with_nothing_left_to_do_removes_a_dead_lease(
    tmp_path: Path, database: Path
) -> None:
    """Killed when all was done but giving the lease back."""
    url = f"chroma:{database}"
    path = write_manifest(tmp_path, url, swap__keep_old="0d", verify__margin=0.5)
    assert migration(path).run(swap=True).state == "swapped"
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    dead = replace(Owner.this_process("move"), pid=process.pid).to_text()
    alive = Owner.this_process("another").to_text()
    for step in ("run", "clean"):
        for claim, left in ((dead, False), (alive, True)):
            if step == "clean" and run_dir(path).history.last(events.Cleaned) is None:
                migration(path).clean()
            with closing(open_store(url)) as store:
                assert store.to_claim().claim("docs", claim) is None
            getattr(migration(path), step)()
            assert ("docs__lease" in names_in(url)) == left
            with closing(open_store(url)) as store:
                store.to_claim().unclaim("docs", claim)
