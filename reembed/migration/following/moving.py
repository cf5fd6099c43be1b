"""A new generation takes the live name, and gives it back.

What an application wrote into the live collection by itself (records that the corpus never had)
goes along: it is copied into the new collection before the name moves, once more while writers
wait, and once more after it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from reembed.cutover.hooks import hook_variables, run_after, run_before
from reembed.cutover.move import move_live_name, retried, writes_held
from reembed.errors import GateError, PreflightError, SourceChangedError, UsageError
from reembed.manifest import SwapKind
from reembed.manifest.urls import place_of
from reembed.migration.following.job import FollowSession, Job
from reembed.records import SHARD_ROWS, chunked
from reembed.report.results import SwapResult
from reembed.run import events
from reembed.run.directory import RunDir
from reembed.run.guards import refuse_held
from reembed.run.ledger import Ledger
from reembed.run.loss import Loss
from reembed.stages.embed import embed_shards
from reembed.stages.export import export_delta
from reembed.stages.load import load
from reembed.stages.swap_kind import parked_as, wanted_kind
from reembed.stores.collection import Collection
from reembed.stores.values import CollectionInfo, Exchange


def kind_of(job: Job) -> SwapKind:
    """How the live name moves here. Raises PreflightError where only with a gap, and none is
    accepted."""
    cutover, swap, live = job.store.to_move(), job.manifest.swap, job.live()
    try:
        pointer = cutover.follow(job.manifest.live) is not None
    except SourceChangedError:  # to one that is gone
        pointer = True
    if swap.kind == "config":
        raise PreflightError(
            "mode: follow moves the live name itself, and swap.kind: config moves none",
            "Leave swap.kind out.",
        )
    if live is None and not pointer and swap.kind == "auto":  # nothing makes way: there is no gap
        return "transaction" if "transaction" in cutover.kinds else "rename"
    if live is None and swap.kind == "rename":
        return "rename"
    return wanted_kind(swap.kind, cutover.kinds, swap.accept_window, pointer)


def refuse_strange(job: Job, live: CollectionInfo | None, adopt: bool) -> None:
    """Raise PreflightError where the live name has a collection that this job did not make."""
    if live is None or adopt or job.current(live) is not None:
        return
    if any(run.history.state == "rolled back" for run in job.runs()):
        return
    raise PreflightError(
        f"{job.manifest.live!r} leads to a collection that this job did not make (id {live.id}, "
        f"{live.count:,} records)",
        "With --adopt the job takes the name over: that collection is kept under another name, and "
        "what it holds besides the corpus is copied into the new one, unless "
        "follow.delete_foreign: true. Or choose another target.collection.",
    )


def follows_itself(name: str) -> PreflightError:
    """The error of a job whose corpus is its live collection."""
    return PreflightError(
        f"mode: follow needs a corpus beside the live collection, and both are {name!r}",
        "Give the live collection a name of its own (target.collection), or leave mode out: a "
        "migration moves a collection to another model, and `reembed run` says what its source has "
        "by then.",
    )


def refuse_own(job: Job, live: CollectionInfo | None) -> None:
    """Raise PreflightError where the corpus is one of the job's own collections, by whatever
    address and name it is given."""
    corpus = job.source()
    if _apart(job.manifest.source.url, job.manifest.target_url):
        return
    if live is not None and corpus.id == live.id:
        raise follows_itself(job.manifest.live)
    if any(run.history.shadow_id == corpus.id for run in job.runs()):
        raise PreflightError(
            f"the corpus {job.manifest.source.collection!r} is a collection that this job has made "
            f"for {job.manifest.live!r}, and deletes once it is replaced",
            "Name as the source what these were built from, or another corpus.",
        )


def _apart(one: str, other: str) -> bool:
    """Whether two URLs are known to lead to two places: a copy of a Chroma folder has collections
    of the same ids."""
    here, there = place_of(one), place_of(other)
    return here is not None and there is not None and not here.samefile(there)


@dataclass(frozen=True)
class Foreign:
    """Where an application's own records are: the collection that has the live name.

    Attributes:
        before: the generation that it is; None where the job did not make it.
    """

    live: Collection
    before: RunDir | None

    def ids(self) -> Iterator[list[str]]:
        """Ids of the records that the corpus never had, as far as the generation knows."""
        with contextlib.ExitStack() as closing:
            ledger, foreign = None, set[str]()
            if self.before is not None:
                ledger = closing.enter_context(Ledger(self.before))
                foreign = self.before.history.foreign_stems
            for page in self.live.list_ids():
                ids = page.to_pylist()
                known = ledger.lookup(ids) if ledger else {}
                yield [id for id in ids if id not in known or known[id].shard in foreign]


def copy_foreign(s: FollowSession, source: Foreign | None) -> int:
    """Copy an application's own records into the new collection. Returns how many."""
    if source is None or s.job.manifest.follow.delete_foreign:
        return 0
    if source.live.describe() is None:
        return 0
    foreign, found = s.run.history.foreign_stems, list[str]()
    for ids in source.ids():
        known = s.ledger.lookup(ids)
        mine = [id for id in ids if id not in known or known[id].shard in foreign]
        for part in chunked(mine, SHARD_ROWS):
            now = source.live.hashes(part)
            found += [
                id for id, row in now.items() if id not in known or known[id].row_sha256 != row
            ]
    if found:
        export_delta(source.live, s.run, found, [])
        embed_shards(s)
        s.ledger.fold()
        load(s.live, s.run, s.ledger, s.progress, s.pause.wait)
    return len(found)


def foreign_of(job: Job, live: CollectionInfo | None) -> Foreign | None:
    """What is to go along from the collection that has the live name; None without one."""
    if live is None:
        return None
    return Foreign(Collection(job.store, live.id), job.current(live))


def move(s: FollowSession) -> SwapResult:
    """Give the generation the live name. Does what is left of it when called again.

    Raises:
        GateError: the name would lead to less than half of the records, and nobody accepted it.
        PreflightError: the name cannot move, or a hold is there.
    """
    job, run = s.job, s.run
    if run.history.last_move != "swap":
        live = job.live()
        kind, source = kind_of(job), foreign_of(job, live)
        _refuse_loss(s, live)
        refuse_held(job.manifest.state_dir)
        run_before(s, _variables(s))
        parked = parked_as(job.store.to_move(), job.manifest.live, run.run_id)
        exchange = Exchange(
            job.manifest.live, s.new.id, live.id if live else None, parked,
            job.manifest.new_model.to_dict() if job.manifest.new_model else None,
        )  # fmt: skip
        if live is not None:
            job.store.to_move().check(job.manifest.live, parked, live.id)
            while not job.store.to_move().prepare(job.manifest.live, s.new.id).ready:
                pass  # what was written is copied while writers wait
        retried(lambda: _move_held(s, kind, exchange, source))
    return finish(s)


def _move_held(
    s: FollowSession, kind: SwapKind, exchange: Exchange, source: Foreign | None
) -> None:
    """Move while writers wait, where there is a name to which they write."""
    store, run = s.job.store, s.run
    if exchange.outgoing_id is None:
        move_live_name(store, run, "swap", kind, exchange)
        return
    with writes_held(store, run, exchange.live, exchange.incoming_id):
        copy_foreign(s, source)
        move_live_name(store, run, "swap", kind, exchange)


def finish(s: FollowSession) -> SwapResult:
    """What follows the move: an application's late writes, and the hook."""
    job, run = s.job, s.run
    done = run.history.require(events.SwapDone)
    outgoing = done.exchange.get("outgoing_id")
    swept, messages = 0, list[str]()
    if run.history.swap_unfinished:
        if outgoing:
            before = next((one for one in job.runs() if one.history.shadow_id == outgoing), None)
            swept = copy_foreign(s, Foreign(Collection(job.store, outgoing), before))
        live = job.live()
        if live is None or live.id != s.new.id:
            new = s.new.describe()
            raise SourceChangedError(
                f"{job.manifest.live!r} does not lead to the new collection after the move",
                "Another process has given it away. Rename what has it now, give the new one "
                f"({new.name if new else 'deleted'!r}) the name, and run the job again.",
            )
        _stop_capture(job, s.new.id, outgoing)
        messages = run_after(s, _variables(s))
        run.history.record(events.SwapFinished(swept=swept))
    there = job.store.catalog.describe_id(outgoing) if outgoing else None
    return SwapResult(
        "swap", run.run_id, True, job.manifest.live, collection=run.history.shadow_name,
        parked=there.name if there else "", kind=str(done.receipt.get("kind", "")),
        guarantee=job.store.to_move().kinds.get(done.receipt.get("kind", ""), ""),
        gap_seconds=done.receipt.get("gap_seconds"), held_seconds=done.receipt.get("held_seconds"),
        swept=swept, messages=messages,
    )  # fmt: skip


def way_back(s: FollowSession) -> CollectionInfo:
    """The collection that a rollback gives the name to. Raises UsageError where there is none."""
    done = s.run.history.last(events.SwapDone)
    outgoing = done.exchange.get("outgoing_id") if done else None
    there = s.job.store.catalog.describe_id(outgoing) if outgoing else None
    if there is None:
        raise UsageError(
            f"{s.job.manifest.name}: there is nothing to go back to: no carry since the last "
            "rebuild, and the collection before that is gone, or there was none",
            "`reembed restore` puts a backup in its place.",
        )
    return there


def go_back(s: FollowSession) -> SwapResult:
    """Give the name back to the collection that had it before the last rebuild.

    Raises:
        UsageError: there is none.
        GateError: the name would lead to less than half of the records, and nobody accepted it.
    """
    job, run = s.job, s.run
    there = way_back(s)
    live = job.live()
    if live is not None:
        _refuse_less(job, live.count, there.count)
    name = run.history.shadow_name
    back = Exchange(
        job.manifest.live, there.id, s.new.id if live is not None else None, name, there.model
    )
    kind = run.history.require(events.SwapBegun).kind
    if back.outgoing_id is None:
        receipt = move_live_name(job.store, run, "rollback", kind, back)
    else:
        with writes_held(job.store, run, back.live, back.incoming_id):
            receipt = move_live_name(job.store, run, "rollback", kind, back)
    _stop_capture(job, s.new.id, there.id)
    run.history.record(events.RollbackFinished())
    return SwapResult(
        "rollback", run.run_id, True, job.manifest.live, collection=there.name, parked=name,
        kind=receipt.kind, gap_seconds=receipt.gap_seconds, held_seconds=receipt.held_seconds,
        messages=[
            "the next call builds and swaps again what made this rebuild necessary: put the "
            f"manifest or the corpus right first, or make the file {job.manifest.state_dir}/hold"
        ],
    )  # fmt: skip


def _stop_capture(job: Job, *ids: str | None) -> None:
    """Remove the logs of writes that a move has begun: a job compares, and asks no log."""
    for id in ids:
        if id is not None and job.store.catalog.describe_id(id) is not None:
            Collection(job.store, id).stop_capture()


def _refuse_loss(s: FollowSession, live: CollectionInfo | None) -> None:
    if live is not None:
        _refuse_less(s.job, live.count, s.new.count())


def _refuse_less(job: Job, now: int, then: int) -> None:
    if Loss("", now, max(0, now - then)).is_mass and not job.accept_loss:
        raise GateError(
            f"{job.manifest.live!r} leads to {now:,} records, and would lead to {then:,}",
            "Nothing was moved. If that is meant, run it again with --accept-loss.",
        )


def _variables(s: FollowSession) -> dict[str, str]:
    name, live = s.run.history.shadow_name, s.job.manifest.live
    parked = parked_as(s.job.store.cutover, live, s.run.run_id)
    return hook_variables(s.job.manifest, s.run, "swap", name, parked, s.dimensions)
