"""A process that is killed in the middle of its work, for tests of resuming."""

from __future__ import annotations

import importlib
import json
import os
import signal
from pathlib import Path
from typing import Any

from tests.support.forked import context

SMALL_SHARD = 50


def work(
    path: Path, step: str, kill: str = "", at: int = 0, seconds: float = 120, **environment: str
) -> int:
    """Run a step of a migration in a process of its own. Returns its exit code, -9 if killed.

    Args:
        step: method of Migration with its arguments, e.g. `run(swap=True)`.
        kill: where to be killed by SIGKILL: before the `at`-th "journal" line, with half of it
            written ("torn"), at the `at`-th "fsync", after the `at`-th "add" to Chroma, or before
            the `at`-th call of a function, "module:name".
        seconds: after which it counts as hung.
    """
    report = path.with_name("outcome.json")
    report.unlink(missing_ok=True)
    # The server that forks it keeps the environment of the first test that needed it.
    environment = {**os.environ, **environment}
    process = context.Process(target=_work, args=(path, step, kill, at, report, environment))
    process.start()
    process.join(seconds)
    assert process.exitcode is not None, "it hangs"
    return process.exitcode


def outcome(path: Path) -> dict[str, Any]:
    """What the step returned (`to_dict`) or raised (`{"error": ...}`), with the events counted."""
    found: dict[str, Any] = json.loads(path.with_name("outcome.json").read_text())
    return found


def _work(
    path: Path, step: str, kill: str, at: int, report: Path, environment: dict[str, str]
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    counts = {"journal": 0, "torn": 0, "fsync": 0, "add": 0}

    def count(kind: str) -> bool:
        counts[kind] = counts.get(kind, 0) + 1
        return kind == kill and counts[kind] == at

    _small_shards()
    _hook(count)
    if ":" in kill:
        _hook_function(kill, count)
    from reembed.errors import ReembedError
    from reembed.manifest import Manifest
    from reembed.migration import Migration
    from reembed.migration.following.following import Following
    from reembed.migration.group.migrations import Migrations

    try:
        manifest = Manifest.load(path)
        kind: Any = Migrations if manifest.is_group else Migration
        migration = (Following if manifest.mode == "follow" else kind)(manifest)
        result = eval(f"migration.{step}", {"migration": migration}).to_dict()
        code = 0
    except ReembedError as error:
        result, code = {"error": error.to_dict()}, error.exit_code
    report.write_text(json.dumps(result | {"counts": counts}))
    os._exit(code)


def _small_shards() -> None:
    import reembed.stages.export
    import reembed.stages.load
    import reembed.sync.carry_back
    import reembed.sync.difference

    for module in (
        reembed.sync.difference,
        reembed.stages.export,
        reembed.stages.load,
        reembed.sync.carry_back,
    ):
        module.SHARD_ROWS = SMALL_SHARD  # type: ignore[attr-defined]


def _hook(count: Any) -> None:
    from chromadb.api.models.Collection import Collection

    from reembed.run.journal import Journal

    append, fsync, add = Journal.append, os.fsync, Collection.add

    def killed_append(self: Journal, event: str, **fields: Any) -> None:
        if count("journal"):
            _die()
        if count("torn"):
            with self.path.open("ab") as file:
                file.write(json.dumps({"event": event, **fields})[:-5].encode())
            _die()
        append(self, event, **fields)

    def killed_fsync(fd: int) -> None:
        if count("fsync"):
            _die()
        fsync(fd)

    def killed_add(self: Collection, *arguments: Any, **options: Any) -> None:
        add(self, *arguments, **options)
        if count("add"):
            _die()

    Journal.append = killed_append  # type: ignore[method-assign]
    os.fsync = killed_fsync  # type: ignore[assignment]
    Collection.add = killed_add  # type: ignore[method-assign]


def _hook_function(kill: str, count: Any) -> None:
    module, _, names = kill.partition(":")
    *path, name = names.split(".")
    owner: Any = importlib.import_module(module)
    for part in path:
        owner = getattr(owner, part)
    function = getattr(owner, name)

    def killed(*arguments: Any, **options: Any) -> Any:
        if count(kill):
            _die()
        return function(*arguments, **options)

    setattr(owner, name, killed)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
