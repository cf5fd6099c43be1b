"""What runs have left on disk, and what of it nobody needs any more: `reembed runs`.

A run that is not cleaned up is a way on or a way back. The newest of a name stays in any case: by
it a job knows that its migration is done. Paid vectors stay while a run that is left used their
model. What goes is named first.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from reembed.backup.directory import default_directory
from reembed.backup.folder import Folder
from reembed.backup.restore import RESTORES, finished, prune_restores
from reembed.embedders.fingerprint import Fingerprint
from reembed.embedders.identity import SHARED, same_model
from reembed.errors import ReembedError
from reembed.migration.group.members import FOLDER
from reembed.migration.group.roster import group_state
from reembed.run import events
from reembed.run.cached import cache_files, caches_in
from reembed.run.directory import RUN_ID, RunDir
from reembed.run.disk import named_errors, write_errors
from reembed.run.lock import StateLock, locked
from reembed.run.taken import bytes_in, file_bytes

NEVER_BEGAN = "never began"


@dataclass(frozen=True)
class StoredRun:
    """A run's directory.

    Attributes:
        name: of the migration.
        state: how far it came; why that cannot be told, where its journal cannot be read.
        bytes: on the disk.
        begun: when it began, seconds since the epoch; 0 where that is not known.
        goes: whether `prune` removes it.
    """

    name: str
    run: str
    path: str
    state: str
    bytes: int
    begun: float
    goes: bool


@dataclass(frozen=True)
class StoredCache:
    """A file of paid vectors.

    Attributes:
        model: whose they are; empty where nothing beside the file says so.
        used_by: names of the migrations whose runs stay and have this model.
        goes: whether `prune` removes it.
    """

    path: str
    model: str
    bytes: int
    used_by: list[str]
    goes: bool


@dataclass(frozen=True)
class Stored:
    """What is there, newest first.

    Attributes:
        removed: whether what goes is gone.
        restores: run directories of finished restores from the snapshots beside the runs, which go
            too.
    """

    state: str
    runs: list[StoredRun] = field(default_factory=list)
    caches: list[StoredCache] = field(default_factory=list)
    removed: bool = False
    restores: list[str] = field(default_factory=list)

    @property
    def freed(self) -> int:
        """Bytes of what goes."""
        runs = sum(run.bytes for run in self.runs if run.goes)
        return runs + sum(cache.bytes for cache in self.caches if cache.goes)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"freed": self.freed}


@named_errors()
def stored(state: Path, name: str | None = None) -> Stored:
    """What runs have left in a state directory. Writes nothing.

    Args:
        name: of one migration, with the caches that its models use; default: of all.
    """
    runs, models = list[StoredRun](), dict[str, list[Fingerprint]]()
    for folder in (
        sorted(path for path in state.iterdir() if path.is_dir()) if state.is_dir() else ()
    ):
        found = [RunDir(path) for path in sorted(folder.iterdir(), reverse=True) if _is_run(path)]
        newest = True
        for run in found:
            one = _stored_run(folder.name, run, newest)
            runs.append(one)
            newest = newest and one.state == NEVER_BEGAN
            if not one.goes:
                models.setdefault(folder.name, []).extend(_models(run))
    caches = [_stored_cache(path, models) for path in caches_in(state / SHARED)]
    if name is not None:
        runs = [one for one in runs if one.name == name]
        caches = [one for one in caches if name in one.used_by]
    restores = [str(run.path) for one in _backed_up(state) for run in finished(one)]
    return Stored(str(state), runs, caches, restores=restores)


@named_errors()
def prune(state: Path, name: str | None = None) -> Stored:
    """Remove what goes; see `stored`.

    Raises:
        LockedError: a run of this state directory is at work.
    """
    with contextlib.ExitStack() as locks:
        for one in sorted({run.name for run in stored(state).runs}):
            locks.enter_context(locked(state / one))
        found = stored(state, name)
        with write_errors(state):
            for run in found.runs:
                if run.goes:
                    shutil.rmtree(run.path)
            for cache in found.caches:
                if cache.goes:
                    for path in cache_files(Path(cache.path)):
                        path.unlink(missing_ok=True)
    gone = list[str]()
    for folder in _backed_up(state):
        with StateLock(folder.path / RESTORES / "lock"):
            done = {run.run_id: str(run.path) for run in finished(folder)}
            gone += [done[id] for id in prune_restores(folder)]
    return Stored(found.state, found.runs, found.caches, True, gone)


def _backed_up(state: Path) -> list[Folder]:
    """Folders of snapshots beside the runs that were restored from."""
    place = default_directory(str(state))
    if not place.is_dir():
        return []
    return [Folder(path) for path in sorted(place.iterdir()) if (path / RESTORES).is_dir()]


def _is_run(path: Path) -> bool:
    return path.is_dir() and RUN_ID.fullmatch(path.name) is not None


def _stored_run(name: str, run: RunDir, newest: bool) -> StoredRun:
    state, begun, cleaned = "", 0.0, False
    try:
        if run.history.read():
            begun = run.history.created.t
            grouped = (run.path / FOLDER).is_dir()
            state = group_state(run) if grouped else run.history.state
            cleaned = state == "cleaned"
        elif run.never_began():
            state = NEVER_BEGAN
        else:
            raise run.journal.lost()
    except ReembedError as error:
        state = f"damaged: {error.message}"
    goes = cleaned and not newest
    return StoredRun(name, run.run_id, str(run.path), state, bytes_in(run.path), begun, goes)


def _models(run: RunDir) -> Iterator[Fingerprint]:
    """Those that a run, or its members, began with."""
    members = (run.path / FOLDER).glob("*/*") if (run.path / FOLDER).is_dir() else ()
    for one in (run, *(RunDir(path) for path in members if _is_run(path))):
        with contextlib.suppress(ReembedError, KeyError, ValueError, TypeError):
            taken = one.history.last(events.FingerprintTaken)
            if taken is not None:
                yield Fingerprint.from_dict(taken.fingerprint)


def _stored_cache(path: Path, models: dict[str, list[Fingerprint]]) -> StoredCache:
    side, size = path.with_suffix(".model.json"), sum(map(file_bytes, cache_files(path)))
    try:
        model = Fingerprint.from_dict(json.loads(side.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError):
        return StoredCache(str(path), "", size, sorted(models), False)
    used = sorted(name for name, of in models.items() if any(same_model(one, model) for one in of))
    label = f"{model.settings.get('provider')} {model.settings.get('name')}"
    return StoredCache(str(path), label, size, used, not used)
