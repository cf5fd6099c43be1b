"""`reembed audit --fix`: embed the bad ones again and write their vectors; and the way back.

A record's vector is written only while the record is as it was when it was judged, and is looked at
afterwards: where an application has changed it meanwhile, what it wrote is embedded in its turn.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from reembed.backup import directory as backups
from reembed.backup.take import Subject as BackedUp
from reembed.backup.take import Wanted, take
from reembed.commands.audit.examine import Looked, caching, looked
from reembed.commands.audit.mending import Kept, Mending, all_of, begin
from reembed.commands.audit.result import Audit, Mended, of_records
from reembed.commands.audit.soundness import are_of_length_one
from reembed.commands.audit.stored import is_same, now_in, there_is
from reembed.commands.audit.subject import Asked, Subject, command_of, opened_subject
from reembed.embedders.fingerprint import Fingerprint
from reembed.embedders.spending import Spending
from reembed.errors import PreflightError, UsageError
from reembed.manifest import Model
from reembed.manifest.template import TextTemplate
from reembed.progress import Progress
from reembed.records import Vectors, bad_rows, chunked, unit
from reembed.run.steps import Step
from reembed.stages.keeping import embed_keeping
from reembed.stores.collection import Collection
from reembed.stores.lease.guarded import LeasedProgress, leased
from reembed.stores.lease.lease import StoreLease
from reembed.stores.values import Orphans

PAGE = 200
"""Records that are looked at, written and looked at again in one go."""
ROUNDS = 5
"""How often a record that an application goes on changing is followed."""
MOST = 0.5
"""Share of a collection that is mended; more is a migration."""


def fix(asked: Asked, progress: Progress | None = None) -> Mended:
    """Embed the bad ones again. A call that was killed is gone on with first.

    Raises:
        PreflightError: more than half of the collection would be written.
        GateError: the backup was refused.
        LockedError: another run is active on this collection.
        as `audit`.
    """
    progress = progress or Progress()
    with Spending(None, asked.caps) as spending:
        with _working(asked, spending, progress) as (subject, guarded):
            unfinished = [one for one in _mendings(subject) if one.open]
            if unfinished:
                return _finish(subject, unfinished[-1], guarded, None)
        with looked(asked, spending, progress) as one:
            found, name = one.audit, one.subject.name
            removable = [each for each in one.orphans if each.remove]
            if not len(one.to_mend) and not removable:
                return Mended("fix", name, found)
            with _leased(one.subject, progress) as (subject, guarded):
                done = Mended("fix", name, found)
                if len(one.to_mend):
                    done = _finish(subject, _plan(one, subject, guarded), guarded, found)
                return _without_orphans(done, subject, removable)


def _without_orphans(done: Mended, subject: Subject, orphans: list[Orphans]) -> Mended:
    """Delete what belongs to no record; it is kept with the mending's own files."""
    if not orphans:
        return done
    path = Path(done.path) if done.path else begin(subject.state, subject.name).path
    removed = sum(one.remove(path / "orphans.jsonl") for one in orphans if one.remove)
    return replace(done, removed=removed, path=str(path))


@contextlib.contextmanager
def _working(
    asked: Asked, spending: Spending, progress: Progress
) -> Iterator[tuple[Subject, Progress]]:
    with (
        opened_subject(asked, spending) as subject, _leased(subject, progress) as found,
    ):  # fmt: skip
        yield found


@contextlib.contextmanager
def _leased(subject: Subject, progress: Progress) -> Iterator[tuple[Subject, Progress]]:
    """The subject with a store that is written to under the lease alone."""
    lease = StoreLease(subject.store, subject.name, f"audit of {subject.name}", "", progress.note)
    lease.acquire()
    try:
        store = leased(subject.store, lambda now: lease.check(now=now))
        yield replace(subject, store=store), LeasedProgress(progress, lease.refuse_lost)
    finally:
        lease.release()


def _mendings(subject: Subject) -> list[Mending]:
    return all_of(subject.state, subject.name, subject.place.url)


def _plan(one: Looked, subject: Subject, progress: Progress) -> Mending:
    """Take a snapshot, keep the vectors that there are, and journal what is intended."""
    rows, held = one.to_mend, one.held
    if len(rows) > MOST * held.count:
        raise PreflightError(
            f"{len(rows):,} of {held.count:,} records would be embedded again: that is no mending",
            "See whether --model and --text are right; if they are, migrate: `reembed init`, then "
            "`reembed run`, which builds the new collection beside the live one.",
        )
    if one.embedder is None or one.template is None:
        raise UsageError(
            f"{of_records(len(rows), 'are to be embedded again')}, and {one.audit.notes[0]}",
            "Name the model that made the vectors with --model.",
        )
    where = backups.folder_of(backups.default_directory(subject.state), subject.name)
    kept = take(BackedUp(subject.store, subject.place.url, subject.name), where, Wanted(), progress)
    refused = kept.refused()
    if refused is not None:
        raise refused
    mending = begin(subject.state, subject.name)
    vectors = [None if held.missing[row] else held.vectors[row] for row in rows]
    mending.keep("old.parquet", pa.table({
        "id": [held.ids[row] for row in rows], "row_sha256": [held.hashes[row] for row in rows],
        "embedding": pa.array(vectors, pa.list_(pa.float32())),
    }))  # fmt: skip
    template = one.template
    mending.note(
        "planned", url=subject.place.url, collection=subject.name, id=subject.info.id,
        model=one.embedder.model.to_dict(), fingerprint=one.embedder.fingerprint().to_dict(),
        template=template.template, layout=template.layout, line_breaks=template.line_breaks,
        records=len(rows), snapshot=str(kept.snapshot.path) if kept.snapshot else "",
        length_one=are_of_length_one(held, np.setdiff1d(held.sound, rows)),
    )  # fmt: skip
    return mending


def _finish(subject: Subject, mending: Mending, progress: Progress, found: Audit | None) -> Mended:
    """Do what is left of a mending that is planned."""
    planned, old = mending.planned, mending.kept("old.parquet")
    if old is None:
        raise mending.lost()
    template = TextTemplate(planned["template"], planned["layout"], planned["line_breaks"])
    collection = Collection(subject.store, planned["id"])
    if collection.describe() is None or subject.info.id != planned["id"]:
        raise PreflightError(
            f"{subject.name!r} leads to another collection than when {mending.path} was begun",
            f"Move that folder away to audit this one; {planned['snapshot']} has the old one.",
        )
    with subject.open(Model(**planned["model"])) as embedder:
        embedder.verify_fingerprint(Fingerprint.from_dict(planned["fingerprint"]))
        with caching(subject, embedder, progress) as cache:

            def vectors_of(rows: pa.RecordBatch) -> tuple[Vectors, npt.NDArray[np.bool_]]:
                texts = template.texts_of(rows)
                fine = [at for at, text in enumerate(texts) if text.strip()]
                made = np.zeros((len(texts), embedder.dimensions), np.float32)
                there = np.zeros(len(texts), np.bool_)
                if fine:
                    made[fine], there[fine] = embed_keeping(
                        embedder, cache, [texts[at] for at in fine]
                    )
                there &= ~bad_rows(made)
                if planned.get("length_one"):  # a mending of an earlier version does not say
                    made[there] = unit(made[there])
                return made, there

            new = mending.kept("new.parquet") or _made(mending, collection, old, vectors_of)
            left = _write(collection, old, new, vectors_of, progress)
    if not mending.event("done"):
        mending.note("done", left=len(left))
    steps = [
        Step(command_of(subject.asked, "--undo", "--yes"), "give them the vectors that they had")
    ]
    if found is None or any(one.high > one.records for one in found.bad):
        steps.insert(0, Step(command_of(subject.asked, "--all"), "look at every record"))
    return Mended(
        "fix", subject.name, found, len(old.ids), len(old.ids) - len(left), left,
        planned["snapshot"], str(mending.path), steps=steps,
    )  # fmt: skip


def _made(mending: Mending, collection: Collection, old: Kept, vectors_of: Any) -> Kept:
    """Embed the texts, and keep what the model gave; of records that are as they were."""
    ids, hashes, made = list[str](), list[bytes](), list[Vectors]()
    known = dict(zip(old.ids, old.hashes, strict=True))
    for page in chunked(old.ids, PAGE):
        rows = collection.fetch(page, vectors=False)
        vectors, there = vectors_of(rows)
        names, now = rows.column("id").to_pylist(), rows.column("row_sha256").to_pylist()
        for at, id in enumerate(names):
            if there[at] and known[id] == now[at]:
                ids.append(id)
                hashes.append(now[at])
                made.append(vectors[at])
    table = pa.table({
        "id": pa.array(ids, pa.string()), "row_sha256": pa.array(hashes, pa.binary(32)),
        "embedding": pa.array(made, pa.list_(pa.float32())),
    })  # fmt: skip
    mending.keep("new.parquet", table)
    mending.note("embedded", records=len(ids))
    kept = mending.kept("new.parquet")
    assert kept is not None, "it was written just now"
    return kept


def _write(
    collection: Collection, old: Kept, new: Kept, vectors_of: Any, progress: Progress
) -> dict[str, str]:
    """Write the new vectors. Returns what was left as it is, with the reason."""
    left = dict.fromkeys(old.ids, "its text cannot be embedded, or was changed since")
    with progress.stage("write vectors", len(new.ids)) as counter:
        for start in range(0, len(new.ids), PAGE):
            rows = slice(start, start + PAGE)
            part = Kept(new.ids[rows], new.hashes[rows], new.vectors[rows], new.there[rows])
            done = _write_page(collection, part, vectors_of)
            for id in part.ids:
                del left[id]
            left |= {id: why for id, why in done.items() if why}
            counter.update(len(part.ids))
    return left


def _write_page(collection: Collection, part: Kept, vectors_of: Any) -> dict[str, str]:
    """Write a page, and look at it again until every record has the vector of its text."""
    wanted = dict(zip(part.ids, zip(part.hashes, part.vectors, strict=True), strict=True))
    told = dict.fromkeys(part.ids, "")
    begun = set[str]()
    waiting = list(part.ids)
    for _ in range(ROUNDS):
        rows = collection.fetch(waiting, vectors=True)
        now = now_in(rows)
        changed = [id for id in waiting if id in now and now[id][0] != wanted[id][0]]
        told |= {id: "it was deleted since" for id in waiting if id not in now}
        told |= {id: "it was changed since" for id in changed if id not in begun}
        ours = [id for id in changed if id in begun]
        if ours:  # changed under our hands: what we wrote may lie over the application's own
            again = collection.fetch(ours, vectors=False)
            vectors, there = vectors_of(again)
            names, hashes = again.column("id").to_pylist(), again.column("row_sha256").to_pylist()
            for at, id in enumerate(names):
                if there[at]:
                    wanted[id] = (hashes[at], vectors[at])
        waiting = [id for id in waiting if id in now and not told[id]]
        todo = [id for id in waiting if not is_same(now[id][1], wanted[id][1])]
        if not todo and not ours:
            return told
        begun.update(todo)
        collection.set_vectors(todo, np.stack([wanted[id][1] for id in todo])) if todo else None
    return told | dict.fromkeys(waiting, "it was not what was written, again and again")


def undo(asked: Asked, progress: Progress | None = None) -> Mended:
    """Give the records of the last mending the vectors that they had, where they still have those
    that it wrote.

    Raises:
        UsageError: there is none.
        LockedError: another run is active on this collection.
    """
    progress = progress or Progress()
    with Spending() as spending, _working(asked, spending, progress) as (subject, guarded):
        mending = last(subject)
        old, new = mending.kept("old.parquet"), mending.kept("new.parquet")
        collection = Collection(subject.store, mending.planned["id"])
        left = _take_back(collection, old, new, guarded) if old and new else {}
        mending.note("done", left=0)
        mending.note("undone", left=len(left))
        count = len(new.ids) if new else 0
        return Mended(
            "undo", subject.name, None, count, count - len(left), left,
            mending.planned["snapshot"], str(mending.path),
        )  # fmt: skip


def last(subject: Subject) -> Mending:
    """The last mending that was not undone."""
    found = [one for one in _mendings(subject) if one.undoable]
    if not found:
        raise UsageError(
            f"{subject.name}: there is no mending to undo in {subject.state}",
            "`reembed audit --fix` of the same URL and collection keeps its way back there.",
        )
    return found[-1]


def _take_back(collection: Collection, old: Kept, new: Kept, progress: Progress) -> dict[str, str]:
    before = {id: old.vectors[row] if old.there[row] else None for row, id in enumerate(old.ids)}
    left: dict[str, str] = {}
    with progress.stage("write vectors", len(new.ids)) as counter:
        for start in range(0, len(new.ids), PAGE):
            ids = new.ids[start : start + PAGE]
            ours = dict(zip(ids, new.vectors[start : start + PAGE], strict=True))
            now = now_in(collection.fetch(ids, vectors=True))
            todo = [id for id in ids if _returns(id, now, ours, before, left)]
            if todo:
                collection.set_vectors(todo, np.stack([there_is(before[id]) for id in todo]))
            after = now_in(collection.fetch(todo, vectors=True))
            there = {id for id in after if is_same(after[id][1], there_is(before[id]))}
            left |= dict.fromkeys(set(todo) - there, "it was not what was written")
            counter.update(len(ids))
    return left


def _returns(
    id: str, now: dict[str, tuple[bytes, Vectors | None]], ours: dict[str, Vectors],
    before: dict[str, Vectors | None], left: dict[str, str],
) -> bool:  # fmt: skip
    """Whether a record gets its old vector back; else why not is told, unless it has it."""
    was = before[id]
    if id not in now:
        left[id] = "it was deleted since"
    elif was is None or not np.isfinite(was).all():
        left[id] = "it had no vector that can be written"
    elif is_same(now[id][1], was):
        return False
    elif not is_same(now[id][1], ours[id]):
        left[id] = "it was changed since"
    return id not in left
