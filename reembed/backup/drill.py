"""Restore a snapshot for practice: into a scratch store, which is asked and thrown away.

The scratch store is a Chroma folder in the temporary directory, whatever the snapshot is of.
Records of another store may have metadata that Chroma does not take; it keeps theirs as one text.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from reembed.backup.check import refuse_damaged
from reembed.backup.directory import folders
from reembed.backup.folder import Folder
from reembed.backup.restore import Job, compare, make, new_run, refuse_vectorless
from reembed.backup.shards import records_of
from reembed.backup.snapshot import ANOTHER_DISK, DRILL, Drill, Snapshot
from reembed.errors import GateError, ReembedError, UsageError
from reembed.progress import Progress
from reembed.records import Vectors, cosine_rows, list_array_to_vectors
from reembed.run.disk import temporary_folder, write_atomic
from reembed.stores.collection import Collection
from reembed.stores.registry import open_store
from reembed.stores.values import StoreOptions

ASKED, FOUND, DEPTH = 200, 0.95, 10
"""Known records that are searched for, how many of them must be found, and among how many."""
TWIN = 0.99999
"""Cosine from which a record's vector may stand before its own: another record has the same."""
NAME = "drill"


@dataclass(frozen=True)
class Drilled:
    """What a drill of one collection's snapshot found."""

    collection: str
    snapshot: str
    drill: Drill

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Drills:
    """What came of the drills of a directory."""

    collections: list[Drilled]

    @property
    def exit_code(self) -> int:
        """4 where one did not pass."""
        return 0 if all(one.drill.passed for one in self.collections) else GateError.exit_code

    def to_dict(self) -> dict[str, Any]:
        return {"collections": [one.to_dict() for one in self.collections],
                "passed": not self.exit_code}  # fmt: skip


def drill(
    directory: Path, collection: str | None = None, *, snapshot: str | None = None,
    progress: Progress,
) -> Drills:  # fmt: skip
    """Restore the newest good snapshot of each collection for practice, and keep what was found
    beside it.

    Args:
        snapshot: another one, of one collection.

    Raises:
        UsageError: there is no such snapshot, or a snapshot is named and there are several
            collections.
        PreflightError: it has no vectors, or the temporary directory is full.
    """
    found = folders(directory, collection)
    if snapshot is not None and len(found) > 1:
        raise UsageError(
            f"{directory}: holds snapshots of {len(found)} collections",
            "Choose with --collection whose snapshot it is.",
        )
    return Drills([_drill(folder, snapshot, progress) for folder in found])


def _drill(folder: Folder, id: str | None, progress: Progress) -> Drilled:
    with folder.reading():
        snapshot = folder.choose(id)
        refuse_vectorless(snapshot)
        began = time.time()
        try:
            found = _practise(folder, snapshot, progress)
        except ReembedError as error:
            found = Drill(began, passed=False, problems=[error.message])
    told = json.dumps(found.to_dict(), indent=1).encode()
    write_atomic(snapshot.path / DRILL.name, told, ANOTHER_DISK)
    return Drilled(snapshot.collection, snapshot.id, found)


def _practise(folder: Folder, snapshot: Snapshot, progress: Progress) -> Drill:
    began = time.time()
    refuse_damaged(folder, snapshot, progress)
    with temporary_folder() as scratch, contextlib.ExitStack() as closing:
        url = f"chroma:{scratch / 'db'}"
        store = open_store(url, StoreOptions(create=True))
        closing.callback(store.close)
        job = Job(folder, snapshot, store, url, NAME, NAME, scratch=scratch)
        made = make(job, new_run(job), progress)
        compared = compare(job, made, progress)
        asked, missed = _ask(job, made)
    problems = [*compared.problems]
    if len(missed) > (1 - FOUND) * asked:
        problems.append(
            f"{len(missed):,} of {asked:,} known records do not find themselves, e.g. "
            f"{', '.join(missed[:5])}"
        )
    return Drill(
        began, not problems, compared.records, asked, asked - len(missed),
        round(time.time() - began, 3), problems,
    )  # fmt: skip


def _ask(job: Job, made: Collection) -> tuple[int, list[str]]:
    """Search for known records by their own vectors. Returns how many, and the ids of those that
    are not found."""
    asked, missed = 0, list[str]()
    for ids, vectors in _questions(job):
        for id, vector, answer in zip(ids, vectors, made.query(vectors, DEPTH), strict=True):
            asked += 1
            if id not in answer and not _has_twin(made, answer, vector):
                missed.append(id)
    return asked, missed


def _questions(job: Job) -> Iterator[tuple[list[str], Vectors]]:
    """Ids and vectors of some records, spread over the shards."""
    each = max(1, ASKED // max(1, len(job.snapshot.shards)))
    left = ASKED
    for batch in records_of(job.snapshot, job.folder.shards):
        vectors, usable = list_array_to_vectors(batch.column("embedding"))
        ids = batch.filter(pa.array(usable)).column("id")
        fine = [n for n in range(len(ids)) if vectors[n].any()]
        places = fine[:: max(1, len(fine) // each)][: min(each, left)]
        if places:
            left -= len(places)
            yield [ids[n].as_py() for n in places], np.ascontiguousarray(vectors[places])


def _has_twin(made: Collection, answer: list[str], vector: Vectors) -> bool:
    """Whether what was found has the very vector that was asked for."""
    vectors, _ = list_array_to_vectors(made.fetch(answer[:1], vectors=True).column("embedding"))
    return bool(len(vectors)) and bool(cosine_rows(vectors[:1], vector[None])[0] >= TWIN)
