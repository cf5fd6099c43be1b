"""How far the process at work is, for `status` in another terminal.

The state of a run is in its journal. What a journal does not tell (records of an open shard, rate,
time left, a wait) the process at work notes in `<state>/<name>/progress.json`, about once a second,
and removes it at the end. It is believed only while somebody holds the lock beside it.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from reembed.manifest import Manifest
from reembed.progress import Counter, Progress, Stand, Tracked, short_time
from reembed.records import SHARD_ROWS
from reembed.run.directory import RunDir
from reembed.run.disk import PRIVATE_FILE
from reembed.run.lock import holder

NOW_FILE = "progress.json"
EVERY = 1.0
"""Seconds between two notes of one stage."""


class KeptProgress(Tracked):
    """Tells another what it is told, and keeps how far that is in a file.

    Args:
        path: of the file.
    """

    def __init__(self, progress: Progress, path: Path) -> None:
        super().__init__()
        self._progress, self._path = progress, path
        self._kept = -EVERY

    @contextlib.contextmanager
    def stage(self, name: str, total: int = 0, done: int = 0) -> Iterator[Counter]:
        with (
            super().stage(name, total, done) as mine,
            self._progress.stage(name, total, done) as other,
        ):
            yield _Both(mine, other)

    def note(self, message: str) -> None:
        self._progress.note(message)

    def waiting(self, seconds: float, why: str) -> None:
        super().waiting(seconds, why)
        self._progress.waiting(seconds, why)
        self._keep()

    def metered(self, meter: Any) -> None:
        super().metered(meter)
        self._progress.metered(meter)

    def began(self) -> None:
        self._keep()

    def counted(self) -> None:
        if self.clock() - self._kept >= EVERY:
            self._keep()

    def ended(self, stand: Stand) -> None:
        self.counted()  # of many collections the next stage has begun by then

    def _keep(self) -> None:
        """Replace the file. It only helps to look on, so what goes wrong with it is nobody's."""
        fresh = self._path.with_name(f".{NOW_FILE}.{os.getpid()}.tmp")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        with self.lock, contextlib.ExitStack() as failing:
            self._kept = self.clock()
            document = {"t": time.time(), "stages": [vars(stand) for stand in self.stands()]}
            failing.enter_context(contextlib.suppress(OSError))
            failing.callback(fresh.unlink, missing_ok=True)
            with os.fdopen(os.open(fresh, flags, PRIVATE_FILE), "wb") as file:
                file.write(json.dumps(document).encode())
            fresh.replace(self._path)

    def remove(self) -> None:
        """Nobody is at work any more."""
        with contextlib.suppress(OSError):
            self._path.unlink()


@contextlib.contextmanager
def kept(progress: Progress, manifest: Manifest) -> Iterator[Progress]:
    """`progress`, which is kept in a file for others to read within the block."""
    found = KeptProgress(progress, manifest.state_dir / NOW_FILE)
    try:
        yield found
    finally:
        found.remove()


@dataclass(frozen=True)
class _Both:
    mine: Counter
    other: Counter

    def update(self, n: float | None = 1) -> None:
        self.mine.update(n)
        self.other.update(n)


@dataclass(frozen=True)
class Now:
    """Who is at work on a migration, and how far.

    Attributes:
        holder: process, machine and since when, as it wrote itself down.
        stages: the open ones, the outermost first; empty where nothing is known of them.
        seconds_ago: when they were noted.
    """

    holder: str
    stages: tuple[Stand, ...] = ()
    seconds_ago: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def lines(self) -> list[str]:
        """Each open stage in words."""
        return [f"{stand} (seen {short_time(self.seconds_ago)} ago)" for stand in self.stages]


def read_now(state_dir: Path) -> Now | None:
    """Who is at work on a migration now, None for nobody."""
    who = holder(state_dir / "lease")
    if who is None:
        return None
    names = {one.name for one in fields(Stand)}
    try:
        found = json.loads((state_dir / NOW_FILE).read_bytes())
        stages = tuple(Stand(**{k: v for k, v in one.items() if k in names})
                       for one in found["stages"])  # fmt: skip
        told = [str(stand) for stand in stages]  # raises if they are none
        return Now(who, stages if told else (), max(0.0, time.time() - float(found["t"])))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return Now(who)


@dataclass(frozen=True)
class StageDone:
    """How many shards of a stage are on the disk, or in the new collection.

    Attributes:
        stage: export, embed or load.
        shards, done: of all, and of those that are done.
    """

    stage: str
    shards: int
    done: int


def stages_done(run: RunDir) -> list[StageDone]:
    """How far each stage of a run is, by its journal; nothing before its records are listed."""
    census = run.history.census
    if census is None:
        return []
    exported, embedded = run.shards("export"), run.shards("embed")
    every = max(len(exported), -(-census.rows // SHARD_ROWS))
    loaded = len(embedded) - len(run.history.not_loaded(embedded))
    done = {"export": len(exported), "embed": len(embedded), "load": loaded}
    return [StageDone(stage, every, count) for stage, count in done.items()]
