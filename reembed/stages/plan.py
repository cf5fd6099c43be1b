"""Stage 0: what a run would do, cost and need, and what stands in its way. Writes nothing.

Reads the source's description and a sample of records, embeds a few texts to prove that the model
answers with the dimension it should, and asks the store what its swap can guarantee. What cannot
work is a blocker with a way out; what is worth knowing is a warning.
"""

from __future__ import annotations

import math
import shutil
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from reembed.applications.mem0.plan import examine
from reembed.embedders.embedder import Embedder
from reembed.embedders.recorded import believe
from reembed.embedders.spending import Budget, Spending, cost
from reembed.errors import PreflightError, RefusedError
from reembed.manifest import Manifest
from reembed.progress import human_bytes, stage
from reembed.records import Metric
from reembed.run.directory import new_run_id
from reembed.run.guards import guard_messages
from reembed.run.history import parked_name
from reembed.run.loss import Loss
from reembed.session import Session
from reembed.stages.contact import make_contact
from reembed.stages.estimate import Estimate, make_estimate, timed
from reembed.stages.old_model import old_model_problems
from reembed.stages.refusals import existing, refusals_without_text, taken_by
from reembed.stages.shadow_spec import shadow_spec, target_name
from reembed.stages.swap_kind import SwapPlan, choose_kind
from reembed.stores.store import Cutover, Store
from reembed.stores.values import CollectionInfo, Survey

NO_EXCHANGE = (
    "swap.kind: config builds the new collection next to it and leaves the change to the "
    "application"
)
DISK_RESERVE = 0.10
"""Share of a disk's free space that a run must leave."""


@dataclass(frozen=True)
class Problem:
    """A blocker or a warning, in words, with the way out."""

    message: str
    hint: str = ""


@dataclass(frozen=True)
class Plan:
    """What a run would do.

    Attributes:
        application_config: the application's configuration to deploy with the swap, where reembed
            knows how to write it.
        old_model: what the store says of the model that made its vectors, and what of it is not
            believed; None where it says nothing.
        example: the beginning of one text that would be embedded.
        losses: collections of a run that was begun which lack all, or more than half, of the
            records that it knows of them.
        runs_on: the device of a model that runs in this process; "" for a server's.
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

    @property
    def ok(self) -> bool:
        return not self.blockers

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"ok": self.ok}

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
    embedder, spending = s.embedder, s.spending
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
    checked = writer.check(shadow_spec(manifest, source, target, dimensions))
    refusals = (*survey.refusals, *checked.refusals)
    blockers += [Problem(refusal.message, refusal.hint) for refusal in refusals]
    taken = _target_blockers(manifest, source, target_store, (target, dimensions), own_shadow)
    blockers += [problem for problem in taken if problem not in blockers]
    if swap is not None and swap.kind != "config":
        blockers += _live_blockers(source_store.to_move(), source, manifest.live)
    estimate, sampled = make_estimate(s, source, records)
    over = budget_blockers(manifest, spending, estimate, embedder)
    # A batch takes as long as the provider likes, and a cap leaves nothing for texts to be timed.
    if not over and embedder.batches is None:
        if s.writes:  # a run keeps these vectors, so it must know whose they are
            _ = s.taken
        estimate = replace(estimate, seconds=timed(embedder, sampled, estimate.new_tokens))
    blockers += over
    blockers += [Problem(*told) for told in sampled.found.blockers]
    warnings = _content_warnings(manifest, estimate, embedder.limits.max_tokens)
    left_out = quarantine_problem(manifest, estimate, records)
    if left_out is not None:
        (blockers if estimate.left_out > manifest.verify.allow_quarantined else warnings).append(
            left_out
        )
    warnings += [Problem(*told) for told in sampled.found.warnings]
    if estimate.without_text == 1:
        blockers += [
            Problem(error.message, error.hint)
            for error in refusals_without_text(manifest, source_store, source)
        ]
    warnings += [Problem(text) for text in guard_messages(manifest.state_dir)]
    blockers += disk_blockers(Path(manifest.state), estimate, target_store)
    notes = {
        *source_store.catalog.capabilities.notes, *target_store.catalog.capabilities.notes,
        *survey.notes, *checked.notes,
    }  # fmt: skip
    warnings += [Problem(text) for text in (*embedder.warnings(), *sorted(notes))]
    recorded = believe(source.model, [manifest.model])
    if not s.begun or s.run.history.last_move != "swap":  # then what is there is the new model's
        warnings += [Problem(*told) for told in old_model_problems(s, source)]
    can_point = source_store.cutover is not None and "pointer" in source_store.cutover.kinds
    warnings.append(_application_warning(source, dimensions, swap, can_point))
    mem0 = examine(manifest, source, dimensions)
    warnings += [Problem(text) for text in (*contact.history, *mem0.notes)]
    blockers += [Problem(error.message, error.hint) for error in mem0.blockers]
    if manifest.target_url != manifest.source.url:
        warnings.append(LEASE_IN_SOURCE)
    return Plan(
        manifest.name, source, manifest.target_url, target, dimensions,
        manifest.target.metric or source.metric, records, estimate, spending.budget(), swap,
        manifest.executes(), mem0.changed_config, recorded.to_dict() if recorded else None,
        sampled.found.example, warnings, blockers, runs_on=embedder.runs_on,
    )  # fmt: skip


def refuse_blocked(s: Session) -> None:
    """Raise the blockers of a run that is about to begin; see `make_plan`."""
    if not (plan := make_plan(s)).ok:
        raise plan.refusal()


def _target_blockers(
    manifest: Manifest, source: CollectionInfo, store: Store, target: tuple[str, int],
    own_shadow: str | None,
) -> list[Problem]:  # fmt: skip
    """Args: target: the name of the new collection, and its dimensions."""
    name, dimensions = target
    try:
        same_store = manifest.target_url == manifest.source.url
        there = existing(store, name)
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
        parked = cutover.fit_name(parked_name(live, "x" * len(new_run_id())))
        cutover.check(live, parked, source.id)
    except RefusedError as error:
        return [Problem(f"swap.live: {error.message}", error.hint or "Choose another live name.")]
    return []


def _content_warnings(manifest: Manifest, estimate: Estimate, limit: int | None) -> list[Problem]:
    warnings = []
    if estimate.without_text:
        warnings.append(
            Problem(
                f"{estimate.without_text:.1%} of the sampled records give no text and will be "
                "quarantined",
                "Add fields to the template (text), or allow them with verify.allow_quarantined.",
            )
        )
    if estimate.too_long:
        action = {
            "fail": "will be quarantined",
            "truncate": "will be cut",
            "mean": "will be embedded in pieces and averaged",
        }[manifest.model.on_too_long]
        warnings.append(
            Problem(
                f"{estimate.too_long:.1%} of the sampled texts are longer than {limit:,} tokens "
                f"and {action}",
                "See model.on_too_long.",
            )
        )
    return warnings


def quarantine_problem(manifest: Manifest, estimate: Estimate, records: int) -> Problem | None:
    """What a verdict would say of the records that a run leaves out, where these are too many."""
    allowed, bad = manifest.verify.allow_quarantined, estimate.left_out
    expected = math.ceil(bad / max(1, estimate.sampled) * records)
    if expected <= allowed or estimate.without_text == 1:  # that none has a text is told by itself
        return None
    about = "" if estimate.sampled >= records else "about "
    found = f"{bad:,} of {estimate.sampled:,} sampled records"
    ways = []
    if estimate.too_long and manifest.model.on_too_long == "fail":
        ways.append("model.on_too_long: mean (or truncate) takes in the texts that are too long")
    if estimate.without_text:
        ways.append("a template (text) with more fields gives records a text")
    ways.append(f"verify.allow_quarantined: {expected} lets {about}so many be left out")
    return Problem(
        f"{found} will be quarantined, {about}{expected:,} of all {records:,}, and "
        f"verify.allow_quarantined is {allowed:,}: the verdict would refuse the swap",
        "; ".join(ways) + ".",
    )


def budget_blockers(
    manifest: Manifest, spending: Spending, estimate: Estimate, embedder: Embedder
) -> list[Problem]:
    """What of the caps would be passed by what is estimated."""
    unpriced = spending.unpriced(manifest.model, embedder.price)
    if unpriced:
        return [Problem(unpriced.message, unpriced.hint)]
    needed = cost(estimate.new_tokens + estimate.verify_tokens, embedder.price)
    if not spending.exceeded(needed):
        return []
    refusal = spending.refusal(needed, "embedding and verifying")
    counted = "" if estimate.exact_tokens else (
        " Tokens are estimated on the high side here: a tokenizer (model.options.tokenizer, where "
        "the provider takes one) counts them exactly."
    )  # fmt: skip
    return [Problem(refusal.message, f"Raise the cap, or move less (source.where).{counted}")]


def disk_blockers(state: Path, estimate: Estimate, store: Store) -> list[Problem]:
    """Disks with too little room for what is estimated."""
    needs = {_existing(state): estimate.state_bytes}
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


def _application_warning(
    source: CollectionInfo, dimensions: int, swap: SwapPlan | None, can_point: bool
) -> Problem:
    """A swapped name does not switch the embedder of an application that embeds its own queries."""
    if swap is not None and swap.kind == "pointer":
        return Problem("applications must open the live name through reembed.live to follow it")
    if source.dimensions == dimensions:
        effect = (
            f"both models have {dimensions} dimensions, so its searches would return wrong answers "
            "without an error"
        )
    else:
        effect = f"it would get errors ({source.dimensions} against {dimensions} dimensions)"
    return Problem(
        "does the application embed its own queries? After the swap it must use the new model; "
        f"with the old one {effect}",
        "Move its configuration with swap.before and swap.after"
        + (", or open the name through reembed.live." if can_point else "."),
    )
