"""A hook ends when it should, is told in few and harmless words, and runs once for one move."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from reembed.cutover import hooks
from reembed.cutover import swap as swapping
from reembed.cutover.hooks import run_hook
from reembed.errors import ManifestError, UnreachableError
from reembed.manifest import Manifest
from reembed.migration.following.job import FollowSession
from reembed.migration.following.moving import _variables
from reembed.redaction import remember
from reembed.run.directory import RunDir
from reembed.run.events import HookBegun, HookDone
from tests.support.commands import Command
from tests.support.following import follows_hint
from tests.support.manifests import migration, run_dir, write_manifest

LONG = 60.0


def hook(folder: Path, command: str, seconds: float = LONG) -> str | None:
    return run_hook(command, {}, seconds=seconds, folder=folder)


def ended(pid: int) -> bool:
    """Whether a process is gone, or a zombie that nobody asks for."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] in "ZX"


@pytest.mark.parametrize("left", ["sleep 300 &", "(trap '' TERM; sleep 300) &", "setsid sleep 2 &"])
def test_a_child_in_the_background_holds_nothing_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    monkeypatch.setattr(hooks, "GRACE_SECONDS", 0.5)
    begun = time.monotonic()
    assert hook(tmp_path, f"{left} echo $! > pid; echo away") is None
    assert time.monotonic() - begun < 30
    if "setsid" not in left:  # the way to leave a service running, on purpose
        assert ended(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize("patient", ["", "trap '' TERM; "])
def test_what_takes_too_long_is_ended_with_its_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patient: str
) -> None:
    monkeypatch.setattr(hooks, "GRACE_SECONDS", 0.5)
    command = f"{patient}echo working; sleep 300 & echo $! > pid; wait; sleep 300"
    failure = hook(tmp_path, command, seconds=1.0)
    assert failure is not None
    assert "longer than 1 s (swap.hook_timeout) and was ended: working" in failure
    assert ended(int((tmp_path / "pid").read_text()))


def test_its_output_is_bounded_and_harmless(tmp_path: Path) -> None:
    remember("s3cr3t-K3y-9")
    failure = hook(
        tmp_path,
        "yes 'much output' | head -c 20000000; printf 'a\\033[31m\\233 %s\\n' s3cr3t-K3y-9; exit 3",
    )
    assert failure is not None
    assert failure.startswith("exit code 3: ") and failure.endswith("a\\x1b[31m\ufffd [hidden]")
    assert len(failure) < 1_100
    assert "it printed nothing" in str(hook(tmp_path, "false"))
    assert "ended by SIGKILL" in str(hook(tmp_path, "kill -9 $$"))


def test_it_has_no_input_and_runs_in_the_manifests_folder(tmp_path: Path) -> None:
    assert hook(tmp_path, "cat > input; pwd > where; ps -o sid= $$ > session") is None
    assert (tmp_path / "input").read_text() == ""
    assert (tmp_path / "where").read_text().strip() == str(tmp_path.resolve())
    gone = tmp_path / "gone"
    assert "cannot be started" in str(hook(gone, "true"))


@pytest.mark.parametrize("value", ["10", "0s", "1d", "-1m", "m", "1.5h", ""])
def test_a_time_that_is_none(tmp_path: Path, value: str) -> None:
    path = write_manifest(tmp_path, "chroma:db", swap__hook_timeout=value)
    with pytest.raises(ManifestError, match=r"swap\.hook_timeout: is a number"):
        Manifest.load(path)


def test_times() -> None:
    for text, seconds in {"30s": 30, "10m": 600, "2h": 7200}.items():
        swap = Manifest.parse(
            {"name": "a", "source": {"url": "chroma:d", "collection": "c"},
             "model": {"provider": "ollama", "name": "m"}, "swap": {"hook_timeout": text}}, Path(),
        ).swap  # fmt: skip
        assert swap.hook_timeout_seconds == seconds


@follows_hint("Fix the command and run the same command again.")
def test_hooks_run_once_for_one_move(
    tmp_path: Path, database: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_manifest(
        tmp_path, f"chroma:{database}",
        swap__before="echo before >> told; test ! -e broken", swap__after="echo after >> told",
    )  # fmt: skip
    told = tmp_path / "told"
    migration(path).run()

    def cut_off(*_: object) -> None:
        raise UnreachableError("the store is away")

    (tmp_path / "broken").touch()
    assert "exit code 1" in command("swap", path, "--yes").err
    (tmp_path / "broken").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(swapping, "_move_held", cut_off)
        assert command("swap", path, "--yes").code == 7
    assert told.read_text().split() == ["before"] * 2, "a hook that failed is run again"
    done = command("swap", path, "--yes")
    assert done.code == 0, done.err
    assert "the hook swap.before has run for this move already" in done.err
    assert told.read_text().split() == ["before", "before", "after"]

    # A call that is killed while its hook runs leaves an intent without an outcome.
    run_dir(path).history.record(HookBegun(hook="before", action="rollback"))
    back = command("rollback", path, "--yes")
    assert back.code == 0, back.err
    assert "swap.before was begun by a call that was killed before it ended" in back.err
    assert told.read_text().split() == ["before", "before", "after", "after"]
    again = command("swap", path, "--yes")
    assert again.code == 0, again.err
    assert told.read_text().split()[4:] == ["before", "after"], "another move, another time"


def test_an_interrupted_hook_is_ended_and_journalled(
    tmp_path: Path, database: Path, command: Command
) -> None:
    path = write_manifest(
        tmp_path, f"chroma:{database}", swap__before=f"kill -INT {os.getpid()}; sleep 300"
    )
    migration(path).run()
    assert command("swap", path, "--yes").code == 130
    run: RunDir = run_dir(path)
    assert [event.ok for event in run.history.all(HookDone)] == [False]


class Interrupted(subprocess.Popen[bytes]):
    """A process of which the user interrupts the start, when the child is there already."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        signal.raise_signal(signal.SIGINT)


def test_a_hook_interrupted_while_it_starts_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        hook(tmp_path, "echo $$ > pid; exec sleep 300")
    pid = tmp_path / "pid"  # ended before it wrote, or after
    assert not pid.exists() or not pid.read_text() or ended(int(pid.read_text()))


def test_a_following_job_tells_the_name_that_the_store_gives() -> None:
    manifest = SimpleNamespace(new_model=None, name="job", live="docs", target_url="chroma:db")
    store = SimpleNamespace(cutover=SimpleNamespace(fit_name=lambda name: name[:10]))
    run = SimpleNamespace(run_id="r1", history=SimpleNamespace(shadow_name="docs__new"))
    job = SimpleNamespace(manifest=manifest, store=store)
    told = _variables(cast(FollowSession, SimpleNamespace(job=job, run=run, dimensions=3)))
    assert told["PARKED"] == "docs__parked-r1"[:10]
