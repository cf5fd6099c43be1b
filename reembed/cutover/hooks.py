"""The user's own commands around a move, so that the application's configuration moves with it.

A hook runs once for one move: it is journalled before it starts and when it has ended, and a call
that goes on with a move after a kill does not start it again. It runs in the manifest's folder, in
a process group of its own that ends with it, for `swap.hook_timeout` at most; nothing that it
leaves in the background can hold up the move.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from reembed.applications.mem0.plan import application_config
from reembed.errors import PreflightError
from reembed.manifest import Manifest
from reembed.progress import stage
from reembed.redaction import redacted
from reembed.redaction.terminal import harmless
from reembed.run import events
from reembed.run.directory import RunDir
from reembed.run.events import Action, Hook
from reembed.run.signals import held_signals
from reembed.stages.session import Session

OUTPUT_LINES = 5
OUTPUT_CHARACTERS = 1_000
KEPT_BYTES = 1 << 16
"""Of a hook's output, the last ones."""
GRACE_SECONDS = 5.0
"""Between SIGTERM and SIGKILL for what is left of a hook's process group."""


@stage("run a hook")
def run_hook(
    command: str, variables: Mapping[str, str], *, seconds: float, folder: Path
) -> str | None:
    """Run a shell command with `REEMBED_*` variables in its environment.

    Returns None if it ended with 0, else what went wrong with the last lines it printed. Its
    standard output goes to stderr's place: stdout belongs to reembed's one JSON document.
    """
    environment = os.environ | {f"REEMBED_{key}": value for key, value in variables.items()}
    output, written = os.pipe()
    process: subprocess.Popen[bytes] | None = None
    try:
        with held_signals():
            process = subprocess.Popen(  # noqa: S602  (the user's own command, listed by `plan`)
                command, shell=True, env=environment, cwd=folder, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=written, stderr=written,
            )  # fmt: skip
        tail = _follow(process, output, time.monotonic() + seconds)
        timed_out = process.poll() is None
    except OSError as error:
        if process is not None:
            raise
        return f"it cannot be started in {folder}: {error.strerror}"
    finally:  # also where the user interrupts
        os.close(written)
        if process is not None:
            _end_group(process)
        os.close(output)
    if timed_out:
        return f"it took longer than {seconds:g} s (swap.hook_timeout) and was ended: {_told(tail)}"
    if process.returncode == 0:
        return None
    if process.returncode < 0:
        return f"ended by {signal.Signals(-process.returncode).name}: {_told(tail)}"
    return f"exit code {process.returncode}: {_told(tail)}"


def _follow(process: subprocess.Popen[bytes], output: int, deadline: float) -> bytes:
    """Read what it prints until it has ended, or the deadline has passed. Returns the end of it.

    The pipe's own end is not waited for: a child in the background may hold it for ever.
    """
    os.set_blocking(output, False)
    tail, ended, is_open = b"", False, True
    while True:
        readable = select.select([output] if is_open else [], [], [], 0 if ended else 0.05)[0]
        if readable:
            data = os.read(output, KEPT_BYTES)
            is_open = data != b""
            tail = (tail + data)[-KEPT_BYTES:]
        if ended and (not readable or time.monotonic() > deadline):
            return tail
        ended = ended or process.poll() is not None
        if not ended and time.monotonic() > deadline:
            return tail


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End the hook and all that it started in its group: SIGTERM, then SIGKILL."""
    for number, patience in ((signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, GRACE_SECONDS)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            process.poll()
            if process.returncode is not None and not _group_lives(process.pid):
                return
            time.sleep(0.02)


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not _all_dead(group)


def _all_dead(group: int) -> bool:
    """Whether only processes are left that are dead and that their new parent has not asked for:
    in a container nobody may ever do."""
    states = list(_states(group))
    return bool(states) and all(state in "ZX" for state in states)


def _states(group: int) -> Iterator[str]:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, IndexError):
            fields = stat.read_text("utf-8", "replace").rpartition(")")[2].split()
            if int(fields[2]) == group:
                yield fields[0]


def _told(output: bytes) -> str:
    """The last lines of an output, short, without secrets and control characters."""
    lines = redacted(output.decode("utf-8", "replace")).strip().splitlines()
    lines = [harmless(line.strip()) for line in lines[-OUTPUT_LINES:]]
    return " | ".join(filter(None, lines))[-OUTPUT_CHARACTERS:] or "it printed nothing"


def hook_variables(
    manifest: Manifest, run: RunDir, action: str, collection: str, other: str,
    dimensions: int | None,
) -> dict[str, str]:  # fmt: skip
    """What a hook is told, without the `REEMBED_` in front.

    Args:
        dimensions: of the vectors; None for collections that differ in it.
    """
    model = manifest.new_model
    provider, name = (model.provider, model.name) if model else ("keep", "")
    return {
        "ACTION": action, "NAME": manifest.name, "RUN": run.run_id, "LIVE": manifest.live,
        "COLLECTION": collection, "PARKED": other, "URL": manifest.target_url,
        "PROVIDER": provider, "MODEL": name,
        "DIMENSIONS": "" if dimensions is None else str(dimensions),
    }  # fmt: skip


def variables_of(s: Session, action: str) -> dict[str, str]:
    """What the hooks of a run's move are told."""
    config = application_config(s.manifest, s.run.path, action)
    names = s.run.history.shadow_name, s.parked_as
    variables = hook_variables(s.manifest, s.run, action, *names, s.dimensions)
    return variables | ({} if config is None else {"APPLICATION_CONFIG": str(config)})


def run_before(s: Session, variables: Mapping[str, str]) -> None:
    """Run the `before` hook. Raises PreflightError if it fails: nothing has moved yet."""
    failure = _run_once(s, "before", s.manifest.swap.before, variables)
    if failure:
        raise PreflightError(
            f"the hook swap.before failed, so nothing was moved: {failure}",
            "Fix the command and run the same command again.",
        )


def run_after(s: Session, variables: Mapping[str, str]) -> list[str]:
    """Run the `after` hook. A failure is told, with the way back: the live name is where it stays,
    after a move or after one that was given up."""
    failure = _run_once(s, "after", s.manifest.swap.after, variables)
    if not failure:
        return []
    serves, way_back = "old", ""
    if variables["ACTION"] == "swap":
        serves, way_back = "new", ", or go back with `reembed rollback`"
    return [
        f"the hook swap.after failed: {failure}. The live name serves the {serves} collection: run "
        f"the command by hand{way_back}."
    ]


def _run_once(
    s: Session, hook: Hook, command: str | None, variables: Mapping[str, str]
) -> str | None:
    """Run a hook unless it has run for this move. Returns what went wrong."""
    if not command:
        return None
    action: Action = "rollback" if variables["ACTION"] == "rollback" else "swap"
    last = _last_of_move(s.run, hook, action)
    if isinstance(last, events.HookBegun):
        s.progress.note(
            f"the hook swap.{hook} was begun by a call that was killed before it ended, so it is "
            "not run a second time: check that it has done its work"
        )
        s.run.history.record(events.HookDone(hook=hook, action=action))
        return None
    if last is not None and last.ok is not False:
        s.progress.note(f"the hook swap.{hook} has run for this move already")
        return None
    s.run.history.record(events.HookBegun(hook=hook, action=action))
    failure: str | None = "it was interrupted"
    try:
        failure = run_hook(
            command, variables, seconds=s.manifest.swap.hook_timeout_seconds,
            folder=s.manifest.base_dir,
        )  # fmt: skip
    finally:
        s.run.history.record(events.HookDone(hook=hook, action=action, ok=failure is None))
    return failure


def was_stopped(run: RunDir, action: Action) -> bool:
    """Whether the `before` hook has run, or begun to, for a move that is not finished."""
    return _last_of_move(run, "before", action) is not None


def _last_of_move(
    run: RunDir, hook: Hook, action: Action
) -> events.HookBegun | events.HookDone | None:
    """The newest event of this hook since the last move was finished."""
    ours = (events.HookBegun, events.HookDone)
    for event in reversed(run.history.read()):
        if isinstance(event, events.SwapFinished | events.RollbackFinished):
            return None
        if isinstance(event, ours) and (event.hook, event.action) == (hook, action):
            return event
    return None
