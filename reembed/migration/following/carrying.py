"""A little of the corpus has changed: it is embedded and written into the live collection.

What is to be carried is a delta of the generation that is live, and goes the way of every delta:
export, embed, load. Each step is journalled before the next, and a call that was killed is finished
by the next one. Before a delta is loaded, what the live collection holds of its records is kept, so
that `rollback` can put it back; after it, every record and vector is read again, and a sample is
searched for.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from reembed.errors import DamagedError, GateError, UsageError
from reembed.migration.following.job import FollowSession
from reembed.quality.findings import Findings
from reembed.quality.integrity import KINDS, check_served, check_texts
from reembed.records import EXPORT_SCHEMA, SHARD_ROWS, Vectors, chunked
from reembed.run import events
from reembed.run.disk import atomic_file, file_sha256, make_private_dir, remove
from reembed.run.shards import DELTA, Besides
from reembed.stages.embed import embed_shards
from reembed.stages.export import export_delta
from reembed.stages.load import load
from reembed.stores.collection import Collection
from reembed.sync.difference import Difference, find_late
from reembed.sync.mend import restore_shards
from reembed.sync.since import counted
from reembed.verify.corpus import Corpus

REPLACED = "replaced"
"""Folder of a run with what the last call has replaced."""
SEARCHED = 100
"""Records that are searched for after a carry."""
FEWEST_SEARCHED = 20
"""Fewer than this tell nothing of an index."""


def compare(s: FollowSession, corpus: Collection) -> Difference:
    """What the corpus holds otherwise than the generation that is live was given. Records of that
    one which never were the corpus's are no deletions."""
    return find_late(corpus, s.run, s.ledger)


def refuse_drop(s: FollowSession, found: Difference) -> None:
    """Raise GateError where too much of the corpus is gone at once, unless a person accepted it."""
    settings = s.job.manifest.follow
    total, _ = s.ledger.counts()
    had = total - sum(len(s.ledger.current(stem)) for stem in s.run.history.foreign_stems)
    lost = len(found.deleted)
    if not lost or (lost < had and lost <= settings.max_drop * had):
        return
    left = max(0, had - lost)
    name = s.manifest.source.collection
    if s.accept_loss:
        s.run.history.record(events.LossAccepted(collection=name, had=had, lost=lost, left=left))
        return
    raise GateError(
        f"{name!r} has lost {lost:,} of the {had:,} records that it had when it was last carried "
        f"(follow.max_drop is {settings.max_drop:.0%})",
        "Nothing was changed. An empty or collapsed corpus is not carried over a good index: look "
        "at the corpus first. If they were meant to go, say so once with --accept-loss.",
    )


def open_stems(s: FollowSession) -> list[str]:
    """Deltas that were begun since the last call that came to its end."""
    found: dict[str, None] = {}
    for event in s.run.history.all(events.ShardWritten, events.Followed, events.SwapFinished):
        if not isinstance(event, events.ShardWritten):
            found.clear()
        elif event.stage == "export" and event.shard.stem.startswith(DELTA):
            found[event.shard.stem] = None
    return [*found]


def carry(s: FollowSession, corpus: Collection, found: Difference) -> events.Followed:
    """Carry a difference into the live collection; what an earlier call has begun goes with it.

    Raises:
        GateError: more records would be left out than the manifest allows, and nothing was written
            to the live collection; or it does not hold what was written to it.
    """
    differs = counted(found, s.ledger)
    s.run.history.record(
        events.FollowBegun(added=differs.added, changed=differs.changed, deleted=differs.deleted)
    )
    if found:
        export_delta(corpus, s.run, found.changed, found.deleted)
    return finish(s)


def begin_again(s: FollowSession) -> None:
    """Embed what a killed call has exported, so that the ledger knows it before it is compared."""
    if open_stems(s):
        embed_shards(s)
        s.ledger.fold()


def finish(s: FollowSession, *, undone: bool = False) -> events.Followed:
    """Embed, load and check the deltas that are open. See `carry`."""
    embed_shards(s)
    s.ledger.fold()
    _refuse_quarantined(s)
    stems = open_stems(s)
    loaded = s.run.history.loaded_stems
    again = {stem: sorted(s.ledger.current(stem)) for stem in stems if stem in loaded}
    if any(again.values()):  # a call before this one found them otherwise than it had written them
        restore_shards(s.live, again, s.run)
    for shard in s.run.history.not_loaded(s.run.shards("embed")):
        if not undone:
            _keep_replaced(s, shard.stem)
    load(s.live, s.run, s.ledger, s.progress, s.pause.wait)
    _check(s, stems)
    begun = s.run.history.last(events.FollowBegun)
    done = events.Followed(
        stems=tuple(stems), undone=undone,
        added=begun.added if begun else 0, changed=begun.changed if begun else 0,
        deleted=begun.deleted if begun else 0,
    )  # fmt: skip
    s.run.history.record(done)
    _forget_replaced(s, stems)
    return done


def _refuse_quarantined(s: FollowSession) -> None:
    _, quarantined = s.ledger.counts()
    allowed = s.manifest.verify.allow_quarantined
    if quarantined > allowed:
        raise GateError(
            f"{quarantined:,} records of the corpus cannot be embedded, and "
            f"verify.allow_quarantined is {allowed:,}",
            f"Nothing was written to the live collection. {s.run.path / 'quarantine'} says why for "
            f"each; mend the corpus, or allow them with verify.allow_quarantined: {quarantined}.",
        )


# What is replaced, and the way back


def _keep_replaced(s: FollowSession, stem: str) -> None:
    """Write down what the live collection holds of a delta's records, once, before it is loaded."""
    if any(event.stem == stem for event in s.run.history.all(events.ReplacedKept)):
        return
    export = s.run.shards("export")[stem]
    ids = s.run.read_shard(export, ["id"]).column("id").to_pylist()
    ids = list(dict.fromkeys([*ids, *export.deleted]))
    parts = [pa.Table.from_batches([], EXPORT_SCHEMA)]
    for page in chunked(ids, SHARD_ROWS):
        parts.append(pa.Table.from_batches([s.new.fetch(page, vectors=True)]))
    table = pa.concat_tables(parts)
    make_private_dir(s.run.path / REPLACED)
    path = s.run.path / REPLACED / f"{stem}.parquet"
    with atomic_file(path) as file:
        pq.write_table(table, file, compression="zstd")
    there = {*table.column("id").to_pylist()}
    absent = tuple(id for id in ids if id not in there)
    s.run.history.record(events.ReplacedKept(stem=stem, sha256=file_sha256(path), absent=absent))


def _forget_replaced(s: FollowSession, stems: Sequence[str]) -> None:
    """Remove what earlier calls have replaced."""
    folder = s.run.path / REPLACED
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            if path.stem not in stems:
                remove(path)


def last_carry(s: FollowSession) -> events.Followed | None:
    """The carry that a way back would take back: the newest thing that was done, if it is one."""
    last = s.run.history.last(events.Followed, events.SwapFinished)
    if isinstance(last, events.Followed) and last.stems and not last.undone:
        return last
    return None


def undo(s: FollowSession) -> events.Followed:
    """Put back what the last carry has replaced, and take out what it has added: as a delta, whose
    vectors are paid for.

    Raises:
        UsageError: there is no carry to take back.
        DamagedError: what was kept is not whole; nothing was changed.
    """
    last = last_carry(s)
    if last is None:
        raise UsageError(f"{s.job.manifest.name}: there is no carry to take back")
    rows, gone, seen = list[pa.Table](), list[str](), set[str]()
    for event in s.run.history.all(events.ReplacedKept):
        if event.stem not in last.stems:
            continue
        path = s.run.path / REPLACED / f"{event.stem}.parquet"
        if not path.is_file() or file_sha256(path) != event.sha256:
            raise DamagedError(
                f"{path}: what the last call has replaced is damaged or gone",
                "Nothing was changed. Mend the corpus and run the job, or restore a backup.",
            )
        table = pq.read_table(path, schema=EXPORT_SCHEMA)
        ids = table.column("id").to_pylist()
        rows.append(table.filter(pa.array([id not in seen for id in ids], pa.bool_())))
        gone += [id for id in event.absent if id not in seen]
        seen.update(ids, event.absent)
    s.run.history.record(
        events.FollowBegun(added=last.deleted, changed=last.changed, deleted=last.added)
    )
    number = sum(stem.startswith(DELTA) for stem in s.run.shards("export"))
    table = pa.concat_tables([pa.Table.from_batches([], EXPORT_SCHEMA), *rows])
    for position, start in enumerate(range(0, max(1, table.num_rows), SHARD_ROWS)):
        besides = Besides(gone if position == 0 else ())
        part = table.slice(start, SHARD_ROWS).combine_chunks()
        s.run.write_shard("export", f"{DELTA}{number + position:05d}", part, besides=besides)
    return finish(s, undone=True)


# What is foreign, and what is missing


@dataclass
class Strays:
    """Records of the live collection that are not as the job has left them.

    Attributes:
        foreign: ids that the corpus never had; an application wrote them.
        missing: ids that the job has written, and somebody deleted.
    """

    foreign: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def find_strays(s: FollowSession) -> Strays:
    """Compare the ids of the live collection with those that the job has written."""
    s.ledger.begin_scan()
    for page in s.new.list_ids():
        s.ledger.mark_seen(page.to_pylist())
    found = Strays(s.ledger.strange())
    for ids in s.ledger.unseen(include_quarantined=False):
        found.missing += ids
    return found


def put_back(s: FollowSession, ids: Sequence[str]) -> int:
    """Write records again that somebody deleted from the live collection, from the shards."""
    wanted: dict[str, list[str]] = {}
    for id, entry in s.ledger.lookup(ids).items():
        wanted.setdefault(entry.shard, []).append(id)
    return restore_shards(s.live, wanted, s.run)


def delete_foreign(s: FollowSession) -> int:
    """Delete the records that are not the corpus's. Returns how many there were.

    Raises:
        GateError: they are most of the live collection.
    """
    foreign, had = find_strays(s).foreign, s.new.count()
    if 2 * len(foreign) > had and not s.accept_loss:
        raise GateError(
            f"{len(foreign):,} of the {had:,} records of {s.job.manifest.live!r} are not the "
            "corpus's, and follow.delete_foreign would delete them",
            "None of them was deleted. See who writes them; --accept-loss deletes them all the "
            "same.",
        )
    for ids in chunked(foreign, SHARD_ROWS):
        s.new.delete(ids)
    return len(foreign)


# The gates of a carry


def _check(s: FollowSession, stems: Sequence[str]) -> None:
    """Raise GateError unless the live collection holds what these deltas say, and finds it."""
    findings, corpus = Findings(KINDS), Corpus(s.run, s.ledger, s.template)
    metric = s.manifest.target.metric or s.source.metric
    sample: list[tuple[str, Vectors]] = []
    chance = random.SystemRandom()
    for stem in stems:
        if stem not in corpus.embeds:
            continue
        deleted = [id for id in corpus.exports[stem].deleted if id not in s.ledger.lookup([id])]
        for ids in chunked(deleted, SHARD_ROWS):
            left = s.new.fetch(ids, vectors=False).column("id").to_pylist()
            findings.add("extra", left)
        page = corpus.page(stem)
        if not page.ids:
            continue
        check_texts(page.ids, page.texts, page.keys, findings)
        served = s.new.fetch(page.ids, vectors=True)
        check_served(page.ids, page.rows, page.vectors, served, metric, findings)
        for row in chance.sample(range(len(page.ids)), min(SEARCHED, len(page.ids))):
            sample.append((page.ids[row], page.vectors[row]))
    problems = findings.problems()
    if metric != "ip":  # by inner product not every record is nearest to itself
        problems += _not_found(s, chance.sample(sample, min(SEARCHED, len(sample))))
    if problems:
        raise GateError(
            f"{s.job.manifest.live!r} does not hold what was written to it: {'; '.join(problems)}",
            "Run the job again: it writes these records again and looks again. `reembed rollback` "
            "puts back what was there before.",
        )


def _not_found(s: FollowSession, sample: Sequence[tuple[str, Vectors]]) -> list[str]:
    """Search for records by their own vectors. One that shares its vector with many others counts
    as found if what is found has that vector, which the store says by its order alone: so a few
    may be missed."""
    if len(sample) < FEWEST_SEARCHED:
        return []
    k = min(s.manifest.verify.k, s.new.count())
    answers = s.new.query(np.array([vector for _, vector in sample], np.float32), k)
    lost = [id for (id, _), ids in zip(sample, answers, strict=True) if id not in ids]
    if len(lost) <= (1 - s.manifest.verify.index_recall) * len(sample):
        return []
    return [f"{len(lost):,} of {len(sample):,} records are not found by their own vector, e.g. "
            f"{', '.join(lost[:5])}"]  # fmt: skip
