"""Stage 0: what a run would do, cost and need, and what stands in its way. Writes nothing.

Reads the source's description and a sample of records, embeds a few texts to prove that the model
answers with the dimension it should, and asks the store what its swap can guarantee. What cannot
work is a blocker with a way out; what is worth knowing is a warning.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from reembed.applications.mem0.plan import examine
from reembed.display.shown import Face, Shown, lines, parts
from reembed.embedders.recorded import Recorded, believe
from reembed.embedders.spending import Budget
from reembed.errors import PreflightError, RefusedError
from reembed.manifest import Manifest
from reembed.progress import human_bytes, stage
from reembed.records import Metric
from reembed.run import events
from reembed.run.directory import new_run_id
from reembed.run.guards import guard_messages
from reembed.run.loss import Loss
from reembed.run.taken import bytes_in
from reembed.stages.contact import make_contact
from reembed.stages.estimate import Estimate
from reembed.stages.fill import fills
from reembed.stages.forecast import Size, forecast
from reembed.stages.old_model import old_model_problems
from reembed.stages.refusals import taken_by
from reembed.stages.session import Session
from reembed.stages.shadow_spec import shadow_spec, target_name
from reembed.stages.swap_kind import SwapPlan, choose_kind, parked_as
from reembed.stages.weigh import Problem, application_warning, weigh
from reembed.stages.weigh_kept import kept_application_warning, weigh_kept
from reembed.stores.collection import Collection
from reembed.stores.store import Cutover, Store
from reembed.stores.values import CollectionInfo, Survey, refusals

NO_EXCHANGE = (
    "swap.kind: config builds the new collection next to it and leaves the change to the "
    "application"
)
FILLED = (
    "the new collection is filled past Chroma's `add`: rows straight into chroma.sqlite3, the "
    "index built on all cores (target.bulk: never adds through Chroma instead)"
)
DISK_RESERVE = 0.10
"""Share of a disk's free space that a run must leave."""


@dataclass(frozen=True, repr=False)
class Plan(Shown):
    """What a run would do.

    Attributes:
        application_config: the application's configuration to deploy with the swap, where reembed
            knows how to write it.
        old_model: what the store says of the model that made its vectors, and what of it is not
            believed; None where it says nothing. `given`: what source.model names in its place.
        example: the beginning of one text that would be embedded.
        losses: collections of a run that was begun which lack all, or more than half, of the
            records that it knows of them.
        runs_on: the device of a model that runs in this process; "" for a server's.
        kept: whether vectors are moved as they are, so that nothing is paid.
    """

    name: str
    source: CollectionInfo
    target_url: str
    target: str
    dimensions: int
    metric: Metric
    records: int
    estimate: Estimate
    budget: Budget
    swap: SwapPlan | None
    executes: list[str]
    application_config: str | None = None
    old_model: dict[str, Any] | None = None
    example: str = ""
    warnings: list[Problem] = field(default_factory=list)
    blockers: list[Problem] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    runs_on: str = ""
    kept: bool = False

    @property
    def ok(self) -> bool:
        return not self.blockers

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"ok": self.ok}

    def _face(self) -> Face:
        estimate = self.estimate
        move = f"{self.name}: {self.source.name!r} to {self.target!r}"
        tokens = "" if self.kept else f"{estimate.new_tokens:,} tokens"
        usd = f"${estimate.usd:,.2f}" if estimate.usd is not None else ""
        way = f"{len(self.blockers)} in the way" if self.blockers else "nothing in the way"
        return Face(parts(move, f"{self.records:,} records", tokens, usd, way), [
            ("records", f"{self.records:,}"), ("dimensions", self.dimensions),
            ("metric", self.metric), ("to embed", parts(tokens, usd)),
            ("swap", self.swap.kind if self.swap else ""),
            ("in the way", lines(f"{one.message}. {one.hint}" for one in self.blockers)),
            ("warnings", lines(one.message for one in self.warnings)),
        ])  # fmt: skip

    def refusal(self) -> PreflightError:
        """The blockers as one error."""
        first, *rest = self.blockers
        more = f" (and {len(rest)} more: {'; '.join(p.message for p in rest)})" if rest else ""
        return PreflightError(first.message + more, first.hint)


LEASE_IN_SOURCE = Problem(
    "the lease is kept beside the live name, in the source's store; if reembed may not write "
    "there, the run goes on without one, with a warning",
    "Then make sure that no other machine or state directory migrates the same collection.",
)


KEEP_NEEDS_A_SWAP = Problem(
    "source.without_vector: keep leaves these rows in the old table, so with swap.kind: config "
    "the new collection would not have them",
    "Let reembed move the name (swap.kind: auto; source.where and target.url left out), or give "
    "these rows a vector (source.without_vector: embed).",
)


@stage("look at source, target and model")
def make_plan(s: Session, own_shadow: str | None = None) -> Plan:
    """Look at everything a run depends on.

    Args:
        own_shadow: object id of this run's shadow, if it exists already.

    Raises:
        RefusedError, UnreachableError: as `make_contact`.
    """
    contact = make_contact(s)
    manifest, source_store, target_store = s.manifest, s.source_store, s.store
    source, records, dimensions = contact.source, contact.records, contact.dimensions
    writer = target_store.to_write()
    target = target_name(manifest, writer, dimensions)

    blockers: list[Problem] = []
    swap = None
    try:
        swap = choose_kind(source_store, manifest, source)
    except PreflightError as error:
        blockers.append(Problem(error.message, error.hint))
    survey = source_store.survey(source.id, dimensions) if source_store.survey else Survey()
    if swap is not None and swap.kind == "config" and manifest.source.without_vector == "keep":
        blockers.append(KEEP_NEEDS_A_SWAP)
    if swap is not None and swap.kind != "config":
        blockers += [Problem(text, NO_EXCHANGE) for text in survey.blockers]
    spec = shadow_spec(manifest, source, target, dimensions)
    checked = writer.check(spec)
    blockers += _problems(*survey.refusals, *checked.refusals)
    filled = False
    try:
        filled = fills(manifest, target_store, spec, records)
    except PreflightError as error:
        blockers.append(Problem(error.message, error.hint))
    if not blockers:
        blockers += _problems(*checked.tried)
    if checked.records is not None:
        blockers += _problems(*refusals(partial(_look_through, s.old, checked.records)))
    taken = _target_blockers(manifest, source, target_store, (target, dimensions), own_shadow)
    blockers += [problem for problem in taken if problem not in blockers]
    if swap is not None and swap.kind != "config":
        blockers += _live_blockers(source_store.to_move(), source, manifest.live)
    weighed = weigh_kept(s, source, records) if manifest.keeps else weigh(s, source, records)
    estimate = _foreseen(s, source, dimensions, weighed.estimate, records, fills=filled)
    blockers += weighed.blockers
    warnings = list(weighed.warnings)
    warnings += [Problem(text) for text in guard_messages(manifest.state_dir)]
    blockers += disk_blockers(Path(manifest.state), estimate, target_store)
    notes = {
        *source_store.catalog.capabilities.notes, *target_store.catalog.capabilities.notes,
        *survey.notes, *checked.notes, *([FILLED] if filled else []),
    }  # fmt: skip
    warnings += [Problem(text, note=True) for text in sorted(notes)]
    recorded = believe(source.model, [manifest.new_model])
    if not s.begun or s.run.history.last_move != "swap":  # then what is there is the new model's
        warnings += [Problem(*told) for told in old_model_problems(s, source)]
    can_point = source_store.cutover is not None and "pointer" in source_store.cutover.kinds
    warnings.append(
        kept_application_warning(swap, target, manifest.target_url) if manifest.keeps
        else application_warning(source, dimensions, swap, can_point)
    )  # fmt: skip
    mem0 = examine(manifest, source, dimensions)
    warnings += [Problem(text, note=True) for text in (*contact.history, *mem0.notes)]
    blockers += [Problem(error.message, error.hint) for error in mem0.blockers]
    if manifest.target_url != manifest.source.url:
        warnings.append(LEASE_IN_SOURCE)
    return Plan(
        manifest.name, source, manifest.target_url, target, dimensions,
        manifest.target.metric or source.metric, records, estimate, s.spending.budget(), swap,
        manifest.executes(), mem0.changed_config, _old_model(manifest, recorded),
        weighed.example, warnings, blockers, runs_on=weighed.runs_on, kept=manifest.keeps,
    )  # fmt: skip


def _foreseen(
    s: Session, source: CollectionInfo, dimensions: int, estimate: Estimate, records: int,
    *, fills: bool,
) -> Estimate:  # fmt: skip
    """The estimate with the time of each stage and the memory."""
    size = Size(records, source.dimensions or 0, dimensions, estimate.text_bytes)
    where = Collection(s.source_store, source.id, s.manifest.source.where)
    told = forecast(
        s.manifest.source.url, s.manifest.target_url, where, size, estimate.seconds or 0.0,
        fills=fills,
    )  # fmt: skip
    return replace(estimate, stage_seconds=told.seconds, memory_bytes=told.memory_bytes)


def refuse_blocked(s: Session) -> None:
    """Raise the blockers of a run that is about to begin; see `make_plan`. What the plan foretells
    is noted in the run that begins."""
    plan = make_plan(s)
    if not plan.ok:
        raise plan.refusal()
    told, local = plan.estimate, s.store.catalog.capabilities.local_path
    s.foretold = events.Foretold(
        seconds=told.stage_seconds, tokens=told.new_tokens + told.verify_tokens, usd=told.usd,
        memory_bytes=told.memory_bytes, state_bytes=told.state_bytes, store_bytes=told.store_bytes,
        state_before=bytes_in(Path(s.manifest.state_dir)),
        store_before=bytes_in(local) if local is not None else 0,
    )  # fmt: skip


def _problems(*refusals: RefusedError) -> list[Problem]:
    return [Problem(one.message, one.hint) for one in refusals]


def _look_through(source: Collection, check: Callable[[pa.RecordBatch], None]) -> None:
    """Hold every record against what the target can keep: a sample would miss the rare one."""
    for ids in source.list_ids():
        check(source.fetch_page(ids.to_pylist(), vectors=False))


def _target_blockers(
    manifest: Manifest, source: CollectionInfo, store: Store, target: tuple[str, int],
    own_shadow: str | None,
) -> list[Problem]:  # fmt: skip
    """Args: target: the name of the new collection, and its dimensions."""
    name, dimensions = target
    try:
        same_store = manifest.target_url == manifest.source.url
        there = store.catalog.find(name)
        if same_store and (
            name in (source.name, manifest.source.collection, manifest.live)
            or (there is not None and there.id == source.id)
        ):
            raise PreflightError(
                f"the target collection {name!r} is the source itself",
                "The shadow is built beside the live collection: leave target.collection out, or "
                "choose another name. The live name moves to it at the swap.",
            )
        if there is not None and there.id != own_shadow:
            raise taken_by(there, manifest, dimensions)
    except RefusedError as error:
        return [Problem(error.message, error.hint)]
    return []


def _live_blockers(cutover: Cutover, source: CollectionInfo, live: str) -> list[Problem]:
    """The live name must be legal, and leave room for what the old collection will be called."""
    try:
        parked = parked_as(cutover, live, "x" * len(new_run_id()))
        cutover.check(live, parked, source.id)
    except RefusedError as error:
        return [Problem(f"swap.live: {error.message}", error.hint)]
    return []


def disk_blockers(state: Path, estimate: Estimate, store: Store) -> list[Problem]:
    """A state directory that cannot be written, or disks with too little room for what is
    estimated."""
    there = _existing(state)
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        what = "may not be written by this user" if there.is_dir() else "is a file, not a folder"
        return [Problem(f"state: {there} {what}", "Point `state` at a folder that can be written.")]
    needs = {there: estimate.state_bytes}
    local = store.catalog.capabilities.local_path
    if local is not None:
        path = _existing(local)
        same = next((p for p in needs if p.stat().st_dev == path.stat().st_dev), path)
        needs[same] = needs.get(same, 0) + estimate.store_bytes
    problems = []
    for path, need in needs.items():
        free = shutil.disk_usage(path).free
        if need > free * (1 - DISK_RESERVE):
            problems.append(
                Problem(
                    f"the disk of {path} has {human_bytes(free)} free and the run needs about "
                    f"{human_bytes(need)}",
                    "Free some space, or point `state` at another disk.",
                )
            )
    return problems


def _existing(path: Path) -> Path:
    """The nearest ancestor that exists."""
    return path if path.exists() else _existing(path.parent)


def _old_model(manifest: Manifest, recorded: Recorded | None) -> dict[str, Any] | None:
    if recorded is None:
        return None
    given = manifest.source.model
    return recorded.to_dict() | ({"given": f"{given.provider} {given.name}"} if given else {})
