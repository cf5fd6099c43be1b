"""What a watch remembers from one cycle to the next: a small file, written whole and durably.

It holds counts, ids and hashes of collections, the probe vectors of models and alerts that wait to
be sent; never a document, and never a secret.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from reembed.errors import DamagedError
from reembed.run.disk import read_errors, write_atomic

VERSION = 1
WEEK = 7 * 86_400.0
"""How long the most records that were seen count as what there should be."""


@dataclass
class High:
    """The most records of the last week, and when they were seen (seconds since the epoch)."""

    count: int
    t: float

    def seen(self, count: int, now: float) -> High:
        """After another look. One from the future was seen by a clock that was wrong."""
        fresh = 0 <= now - self.t <= WEEK
        return self if fresh and self.count > count else High(count, now)


@dataclass
class Good:
    """A collection as it was when nothing was wrong with it.

    Attributes:
        high: the most records of the last week.
        by: the same for each value of the key that is counted by.
        canaries: ids of records that found themselves.
        accepted: whether a person said that it is meant to be so.
    """

    t: float
    id: str
    count: int
    high: High
    dimensions: int | None
    metric: str
    by_key: str | None = None
    by: dict[str, High] = field(default_factory=dict)
    canaries: list[str] = field(default_factory=list)
    accepted: bool = False


@dataclass
class Standing:
    """An alert that stands.

    Attributes:
        since: of its first cycle.
        told: when a message about it was last made.
    """

    since: float
    told: float
    status: str
    message: str


@dataclass
class Letter:
    """A message that waits for those who have not got it yet.

    Attributes:
        pending: which targets, by `VARIABLE#place`; never an address.
        tries: how often it was tried.
    """

    t: float
    title: str
    body: str
    kind: str
    pending: list[str]
    tries: int = 0


@dataclass
class Acceptance:
    """A person's word that what is there is meant to be so."""

    t: float
    why: str
    findings: list[str]


@dataclass
class Memory:
    """All of it.

    Attributes:
        url: of the store, without secrets.
        database: which database it was, as `CollectionInfo.database` tells.
        fingerprints: of models, by role, as `Fingerprint.to_dict` has them.
        application: what its configuration said (`applications.facts`).
        reported: when the last report of counts was made.
        mending: collections whose restore was begun by a cycle that may have been killed in it.
    """

    version: int = VERSION
    t: float = 0.0
    url: str = ""
    database: dict[str, Any] = field(default_factory=dict)
    collections: dict[str, Good] = field(default_factory=dict)
    fingerprints: dict[str, dict[str, Any]] = field(default_factory=dict)
    application: dict[str, Any] | None = None
    standing: dict[str, Standing] = field(default_factory=dict)
    outbox: list[Letter] = field(default_factory=list)
    reported: float = 0.0
    accepted: list[Acceptance] = field(default_factory=list)
    mending: list[str] = field(default_factory=list)


_ADAPTER = TypeAdapter(Memory)


def load(path: Path) -> Memory:
    """What is remembered; an empty memory before the first cycle.

    Raises:
        DamagedError: the file is none that `save` wrote.
        PreflightError: it cannot be read.
    """
    try:
        with read_errors(path):
            data = path.read_bytes()
    except FileNotFoundError:
        return Memory()
    try:
        found = json.loads(data)
        if found["version"] != VERSION:
            raise ValueError(f"version {found['version']}")
        return _ADAPTER.validate_python(found)
    except (ValueError, KeyError, TypeError, ValidationError, RecursionError) as error:
        raise DamagedError(
            f"{path}: what the watch remembers is damaged ({type(error).__name__})",
            "The next cycle starts again, and accepts what it finds then. If you have a backup of "
            "the state directory, put the file back from it first.",
        ) from None


def save(path: Path, memory: Memory) -> None:
    """Write it whole and durably. Raises PreflightError."""
    write_atomic(path, json.dumps(asdict(memory), ensure_ascii=False).encode())


def set_aside(path: Path) -> Path:
    """Move a damaged file out of the way, for a person to look at."""
    aside = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%dT%H%M%S')}")
    with read_errors(path):
        path.rename(aside)
    return aside
