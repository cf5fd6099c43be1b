"""Stage 4 of a run, taken with a session: the verdict, and what a swap asks of it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from reembed.errors import BudgetError, DamagedError, GateError, PreflightError
from reembed.manifest import FunctionChoice
from reembed.progress import stage
from reembed.progress.tracing import traced
from reembed.quality.remedies import remedies
from reembed.quality.verdict import Gate, Verdict
from reembed.redaction import redacted_data
from reembed.report.results import gate_error, read_verdict, unread_verdict
from reembed.report.write import write_report
from reembed.run import events, files
from reembed.run.disk import write_atomic
from reembed.run.history import State
from reembed.run.taken import bytes_in
from reembed.stages.embed import budget_stop
from reembed.stages.meter import meter
from reembed.stages.session import Session
from reembed.stages.swap_kind import choose_kind
from reembed.stores.store import Store
from reembed.sync.difference import find_late, without_conflicts
from reembed.sync.live_name import refuse_astray
from reembed.verify.ahead import Ahead
from reembed.verify.checks import verification

UNLOADED: tuple[State, ...] = ("created", "exported", "embedded")


@traced("verify")
def verify_run(s: Session, ahead: Ahead | None = None) -> Verdict:
    """Check every gate, write the verdict and the report, and journal it.

    Args:
        ahead: has found a part of it beside the load.

    Raises:
        BudgetError: what a gate asks the model would pass a cap. There is no verdict then.
    """
    s.check_model()  # it must still be the one that embedded
    refuse_astray(s)
    spent = meter(s, ahead.before if ahead else None)
    try:
        found = ahead.found() if ahead else None
        verdict = verification(s, found=found).verdict(s.progress)
    except BudgetError as error:
        raise budget_stop(s, error.tokens, "verifying") from None
    made = s.run.history.require(events.ShadowCreated)
    opened = opening_gate(
        s.store, s.new.id, s.source.id if _one_store(s) else None,
        s.manifest.target.embedding_function, chosen=bool(made.function),
    )  # fmt: skip
    if opened is not None:
        verdict = replace(verdict, gates=(verdict.gates[0], opened, *verdict.gates[1:]))
    if s.run.history.last_move == "swap":
        verdict = replace(verdict, gates=(*verdict.gates, _late_gate(s)))
    told = redacted_data(verdict.to_dict(), words=False)
    data = json.dumps(told, ensure_ascii=False, indent=2).encode()
    write_atomic(s.run.path / files.VERDICT.name, data)
    swap = _swap_note(s)
    digest = hashlib.sha256(data).hexdigest()
    local = s.store.catalog.capabilities.local_path
    s.run.history.record(
        events.VerdictGiven(
            passed=verdict.passed, swap=swap, sha256=digest, **spent(),
            state_bytes=bytes_in(Path(s.manifest.state_dir)),
            store_bytes=bytes_in(local) if local is not None else 0,
        )
    )  # fmt: skip
    write_report(s.manifest, s.run, s.progress.note)
    return verdict


def verify_slice(s: Session, part: str) -> Verdict:
    """Check the integrity of one slice, `n/t`, of the records."""
    verdict = verification(s).slice_verdict(part, s.progress)
    s.run.history.record(events.SliceVerdict(slice=part, passed=verdict.passed))
    return verdict


def _one_store(s: Session) -> bool:
    return s.manifest.target_url == s.manifest.source.url


@stage("verify: late writes")
def _late_gate(s: Session) -> Gate:
    """Whether everything written to the old collection is in the live one."""
    found = find_late(s.old, s.run, s.ledger)
    late, conflicts = without_conflicts(s.new, found, s.ledger)
    ids = [*late.changed, *late.deleted]
    message = f"{len(ids):,} writes to the old collection are not in the live one"
    figures = {"late": len(ids), "conflicts": len(conflicts)}
    samples = {"late": ids[:20], "conflicts": conflicts[:20]}
    return Gate("late writes", "fail" if ids else "pass", message, figures, samples)


def _swap_note(s: Session) -> dict[str, Any]:
    """For the report: what a swap may claim as things stand, or why none can be made."""
    try:
        source = s.source_store.resolve(s.manifest.source.collection)
        return choose_kind(s.source_store, s.manifest, source).to_dict()
    except PreflightError as error:
        return {"refused": error.message, "hint": error.hint}


def require_verdict(s: Session) -> None:
    """Raise GateError unless the newest verdict passes and no slice has failed since."""
    given = s.run.history.last(events.VerdictGiven)
    if given is None or s.run.history.state in (*UNLOADED, "loaded"):
        raise GateError(
            f"{s.manifest.name}: there is no verdict on this run yet", "Use `reembed run`."
        )
    if not given.passed:
        try:
            verdict = read_verdict(s.run)
        except DamagedError as error:
            verdict = unread_verdict(s.run, error)
        assert verdict is not None, "it was given"
        path = s.run.shown_manifest(s.manifest)
        raise gate_error(verdict, remedies(verdict, path))
    for event in reversed(s.run.history.all(events.VerdictGiven, events.SliceVerdict)):
        if isinstance(event, events.VerdictGiven):
            break
        if not event.passed:
            raise GateError(
                f"{s.manifest.name}: slice {event.slice} failed after the last verdict",
                "Use `reembed verify` to check everything again.",
            )


@stage("verify: how the new collection opens")
def opening_gate(
    store: Store, shadow_id: str, source_id: str | None, choice: FunctionChoice, *, chosen: bool
) -> Gate | None:
    """The gate `opening`: an application opens the new collection in every way in which it can open
    the old one today. None where a store has nothing that could be in the way.

    Stores that keep an embedding function with a collection may refuse to open it with another one,
    or where they do not know it; the records are then all there and of no use. So the ways are
    tried, by a process that has nothing of reembed, on both collections.

    Args:
        source_id: the old collection, None where it is in another store.
        choice: `record` is somebody's own wish to keep a function, whatever it costs.
        chosen: whether the shadow was made by it; versions before that kept a function always, and
            a run that they began goes on as it would have.
    """
    if store.opening is None:
        return None
    shadow = store.catalog.describe_id(shadow_id)
    source = store.catalog.describe_id(source_id) if source_id else None
    if shadow is None:
        return None
    found = store.opening([one.name for one in (shadow, source) if one])
    new = found[shadow.name]
    # Without the old one at hand: a function that is kept keeps others out, and nothing else may.
    old = found[source.name] if source else {way: "" for way in new if not shadow.function}
    lost = {way: why for way, why in new.items() if why and not old.get(way, why)}
    figures = {"new": new, "old": old if source else None, "function": shadow.function}
    if lost:
        told = "; ".join(f"{way}: {why}" for way, why in lost.items())
        if choice == "record":
            message = f"as target.embedding_function: record has it, these ways fail: {told}"
            return Gate("opening", "pass", message, figures)
        if not chosen:
            message = (
                f"made by a version that always kept a function, so these ways fail: {told}; "
                "`reembed clean` and then `reembed run` make it again without one"
            )
            return Gate("opening", "shown", message, figures)
        return Gate("opening", "fail", f"what opens the old collection fails: {told}", figures)
    worked = sum(not why for why in new.values())
    kept = f"the function {shadow.function!r}" if shadow.function else "no function"
    return Gate(
        "opening", "pass",
        f"{worked} of {len(new)} ways of opening work without reembed, all that open the old "
        f"collection; {kept} is kept with it",
        figures,
    )  # fmt: skip
