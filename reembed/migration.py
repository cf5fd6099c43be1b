"""The state machine: one migration, from its manifest to a swapped name and back.

Every public method is a command of the same name, and what it returns has a `to_dict()` that is the
command's `--json` document. Each takes the lease, opens a `Session`, takes its steps in the order
in which they stand here, and journals how far it came.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

from reembed.clean import drop_old, drop_shadow
from reembed.difference import (
    Difference,
    compared_until,
    find_difference,
    find_late,
    without_conflicts,
)
from reembed.embed import embed, write_quarantine
from reembed.engines.local import LocalEngine
from reembed.errors import GateError, PreflightError, SourceChangedError, UsageError
from reembed.export import export, export_delta, take_census
from reembed.leftovers import remove_leftovers
from reembed.load import ensure_shadow, load, load_into_live, not_loaded, resync, shadow_id
from reembed.manifest import Manifest
from reembed.plan import Plan, Problem, index_settings, make_plan, target_name
from reembed.progress import Progress
from reembed.quality.verdict import Gate, Verdict
from reembed.report.data import Report, read_report
from reembed.report.write import write_report
from reembed.results import (
    NEXT_STEP,
    VERDICT_FILE,
    RunResult,
    State,
    gate_error,
    read_verdict,
    run_result,
    run_state,
)
from reembed.rollback import CARRIED_FILE, CarriedBack, WayBack
from reembed.rundir import DELTA, Lease, RunDir, write_atomic
from reembed.session import Session
from reembed.stores.base import Exchange, Receipt
from reembed.swap import (
    SWEEP_SECONDS,
    SwapResult,
    catch_up,
    finish_move,
    hook_variables,
    last_move,
    merge_intruder,
    move_live_name,
    pending_move,
    release_writes,
    rollback_unfinished,
    run_after,
    run_before,
    shadow_was_live,
    swap_unfinished,
    sweep,
    writes_held,
)
from reembed.swapkind import CONFIG_GUARANTEE, SwapPlan, choose_kind, parked_name
from reembed.verify import Verification

Stage = Literal["plan", "export", "embed", "load", "verify", "swap"]
STILL_WRITTEN = (
    "the old collection is still written to, through handles that were opened before the swap: "
    "open them anew, then carry the rest over with `reembed sweep`"
)
STILL_WRITTEN_BACK = (
    "the new collection is still written to, through handles that were opened before the rollback: "
    "open them anew, then carry the rest over with `reembed sweep`"
)
UNLOADED: tuple[State, ...] = ("created", "exported", "embedded")


class Migration:
    """One migration.

    Args:
        manifest: what to move where.
        progress: told how far each stage is; silent by default.
    """

    def __init__(self, manifest: Manifest, progress: Progress | None = None) -> None:
        self.manifest = manifest
        self.progress = progress or Progress()

    # The commands

    def plan(self) -> Plan:
        """Look at everything a run depends on; write nothing."""
        run = self._current_run()
        with self._session(run) as s:
            plan = self._plan(s, shadow_id(run) if run else None)
        if run is None or last_move(run) != "swap":
            return plan
        done = Problem("this migration is done already", "Another one needs another name.")
        return replace(plan, warnings=[done, *plan.warnings])

    def run(
        self, *, until: Stage = "verify", swap: bool = False, if_changed: bool = False
    ) -> RunResult:
        """All stages, resuming where an earlier call stopped.

        Args:
            until: stop after this stage.
            swap: also swap if the verdict passes.
            if_changed: do nothing if the newest run is finished and the source has not changed.

        Raises:
            ReembedError: see `reembed.errors`; running again resumes.
        """
        with self._lease(), self._session(self._current_run()) as s:
            if s.begun:
                self._release_writes(s)
                state = run_state(s.run)
                if pending_move(s.run) == "rollback":
                    done = self._rollback(s, dry_run=False, accept_loss=False)
                    return self._result(s.run, swap=done, messages=["finished the rollback"])
                if pending_move(s.run) or swap_unfinished(s.run):
                    done = self._swap(s, dry_run=False)
                    return self._result(s.run, swap=done, messages=["finished the swap"])
                if state in ("swapped", "cleaned"):
                    return self._result(s.run, messages=["this migration is done"], unchanged=True)
                if if_changed and state == "verified" and not self._source_difference(s):
                    return self._result(s.run, messages=["nothing has changed"], unchanged=True)
            else:
                plan = self._plan(s, None)
                if not plan.ok:
                    raise plan.refusal()
                if until == "plan":
                    return self.status()
                s.create_run()
            self._stages(s, until)
            if until not in ("verify", "swap"):
                return self._result(s.run)
            verdict = self._verify(s)
            if not (swap or until == "swap") or not verdict.passed:
                return self._result(s.run, verdict=verdict)
            swapped = self._reported(s.run, self._swap(s, dry_run=False))
            return self._result(s.run, swap=swapped)

    def verify(self, *, slice: str | None = None) -> RunResult:
        """Check the gates again on a loaded run.

        Args:
            slice: `n/t` checks the integrity of the n-th of t slices of the records alone, for
                nightly jobs. Its verdict is returned and journalled, and never licenses a swap; one
                that fails takes the licence away until a whole verification passes.
        """
        with self._lease(), self._session(self._require_run()) as s:
            state = run_state(s.run)
            if state in UNLOADED:
                raise UsageError(
                    f"{self.manifest.name}: nothing is loaded yet", "Use `reembed run` first."
                )
            if state == "cleaned":
                raise self._wrong_state(s.run, state)
            if slice is not None:
                return self._result(s.run, verdict=self._verify_slice(s, slice))
            return self._result(s.run, verdict=self._verify(s))

    def swap(self, *, dry_run: bool = False) -> SwapResult:
        """Catch up with the source, move the live name to the shadow, sweep up late writes.

        Raises:
            GateError: there is no verdict yet, or it does not pass.
        """
        with self._lease(), self._session(self._require_run()) as s:
            return self._reported(s.run, self._swap(s, dry_run))

    def sweep(self) -> SwapResult:
        """Carry writes that landed in the collection that is not live since the name moved."""
        with self._lease(), self._session(self._require_run()) as s:
            self._release_writes(s)
            state = run_state(s.run)
            if shadow_was_live(s.run) and state != "cleaned":
                return self._sweep_back(s)
            if state != "swapped":
                raise self._wrong_state(s.run, state, "swapped")
            left = self._settle(s)
            swept, conflicts = self._sweep(s)
            return replace(
                self._outcome(s, "sweep", True), swept=swept, conflicts=[*left, *conflicts]
            )

    def rollback(self, *, dry_run: bool = False, accept_loss: bool = False) -> SwapResult:
        """Move the live name back to the old collection, with what was written since.

        Args:
            accept_loss: go back even where rows cannot be carried; they are listed as lost.
        """
        states: tuple[State, ...] = ("swapped", "rolling back", "rolled back")
        with self._lease(), self._session(self._require_run(*states)) as s:
            if last_move(s.run) == "rollback" and not (
                pending_move(s.run) or rollback_unfinished(s.run)
            ):
                already = self._outcome(s, "rollback", True)
                return replace(already, messages=["it is rolled back already"])
            return self._reported(s.run, self._rollback(s, dry_run, accept_loss))

    def clean(self, *, dry_run: bool = False) -> SwapResult:
        """Delete the collection that is not live: the old one after a swap, else the shadow."""
        with self._lease(), self._session(self._require_run()) as s:
            return self._reported(s.run, self._clean(s, dry_run))

    def status(self) -> RunResult:
        """Where the newest run stands."""
        run = RunDir.latest(self.manifest.state_dir)
        if run is None:
            path = str(self.manifest.state_dir)
            return RunResult(self.manifest.name, "", path, "created", messages=["no run yet"])
        return self._result(run)

    def report(self) -> Report:
        """What the newest run did and found, from its run directory alone."""
        run = RunDir.latest(self.manifest.state_dir)
        if run is None:
            raise self._no_run()
        return read_report(self.manifest.name, run, self.manifest.path)

    # Runs

    def _write_report(self, run: RunDir) -> None:
        write_report(self.manifest.name, run, self.manifest.path)

    def _reported(self, run: RunDir, result: SwapResult) -> SwapResult:
        """Bring the report up to what was done. It is done, so a report that cannot be written is
        told and not raised."""
        if not result.done:
            return result
        try:
            self._write_report(run)
        except PreflightError as error:
            told = f"the report could not be written: {error.message}"
            return replace(result, messages=[*result.messages, told])
        return result

    def _session(self, run: RunDir | None) -> Session:
        return Session(self.manifest, run, self.progress)

    @contextlib.contextmanager
    def _lease(self) -> Iterator[None]:
        with Lease(self.manifest.state_dir / "lease"):
            remove_leftovers(self.manifest.state_dir)
            yield

    def _current_run(self) -> RunDir | None:
        """The newest run if it is this manifest's, None where a new one is to begin.

        Raises:
            ManifestError: an unfinished run belongs to another manifest of this name.
        """
        run = RunDir.latest(self.manifest.state_dir)
        if run is None:
            return None
        if run_state(run) == "cleaned":
            done = last_move(run) == "swap"
            return run if done and run.has_identity(self.manifest.identity()) else None
        run.check_identity(self.manifest.identity())
        return run

    def _require_run(self, *states: State) -> RunDir:
        run = RunDir.latest(self.manifest.state_dir)
        if run is None:
            raise self._no_run()
        run.check_identity(self.manifest.identity())
        state = run_state(run)
        if states and state not in states:
            raise self._wrong_state(run, state, *states)
        return run

    def _no_run(self) -> UsageError:
        return UsageError(
            f"{self.manifest.name}: there is no run yet", "Begin one with `reembed run`."
        )

    def _wrong_state(self, run: RunDir, state: State, *states: State) -> UsageError:
        wanted = f", not {' or '.join(states)}" if states else ""
        return UsageError(
            f"{self.manifest.name}: run {run.run_id} is {state}{wanted}",
            f"Next: {NEXT_STEP[state]}." if NEXT_STEP[state] else "",
        )

    def _result(self, run: RunDir, **fields: object) -> RunResult:
        return run_result(self.manifest.name, run, **fields)

    # Stages 0 to 4

    def _plan(self, s: Session, own_shadow: str | None) -> Plan:
        return make_plan(self.manifest, s.source_store, s.store, s.embedder, own_shadow)

    def _stages(self, s: Session, until: Stage) -> None:
        """Stages 1 to 3, each resuming, then catch-up with what was written meanwhile."""
        where = self.manifest.source.where
        source = s.source_store.resolve(self.manifest.source.collection)
        census = take_census(s.source_store, source, where, s.run)
        with self._timed(s, "export"):
            export(s.source_store, census, where, s.run, self.progress)
        if until == "export":
            return
        with self._timed(s, "embed"):
            self._embed(s)
        if until == "embed":
            return
        with self._timed(s, "load"):
            self._load(s)
            if last_move(s.run) == "rollback":
                self._resync(s)
            self._catch_up(s)

    @contextlib.contextmanager
    def _timed(self, s: Session, stage: Stage) -> Iterator[None]:
        spent = s.meter()
        yield
        s.run.journal.append("stage-done", stage=stage, **spent())

    def _embed(self, s: Session) -> None:
        embed(
            s.run.shards("export"), s.run, s.embedder, s.template, s.cache, LocalEngine(),
            self.progress,
        )  # fmt: skip
        s.ledger.fold()
        write_quarantine(s.run, s.ledger)

    def _load(self, s: Session) -> None:
        manifest, dimensions = self.manifest, s.embedder.dimensions
        shadow = ensure_shadow(
            s.store, s.run, target_name(manifest, s.store, dimensions),
            dimensions=dimensions,
            metric=manifest.target.metric or s.source.metric,
            index=index_settings(manifest, s.source),
            metadata=s.source.metadata,
            model=manifest.model,
        )  # fmt: skip
        load(s.store, shadow.id, s.run.shards("export"), s.run.shards("embed"), s.ledger, s.run,
             self.progress)  # fmt: skip

    def _resync(self, s: Session) -> None:
        """Make the shadow, which was live before a rollback, what the shards say again."""
        if shadow_was_live(s.run):
            self._refuse_late(s)
            s.run.journal.append("resync-begun")
            (s.run.path / CARRIED_FILE).unlink(missing_ok=True)
        shards = s.run.shards("export"), s.run.shards("embed")
        resync(s.store, self._shadow(s), *shards, s.ledger, s.run)

    def _refuse_late(self, s: Session) -> None:
        late = self._way_back(s).late()
        if late:
            raise PreflightError(
                f"the new collection holds {len(late):,} writes that came after the rollback, e.g. "
                f"{', '.join(late[:5])}; they would be lost",
                "Carry them over with `reembed sweep`, or delete them there.",
            )

    def _carry(self, s: Session, collection_id: str, difference: Difference) -> list[str]:
        """Export, embed and load what differs, as a delta. Returns the ids of rows left alone
        because a live shadow has newer ones."""
        store = s.source_store
        export_delta(
            store, collection_id, self.manifest.source.where, s.run, difference.changed,
            difference.deleted,
        )  # fmt: skip
        self._embed(s)
        if last_move(s.run) == "swap":
            return self._load_into_live(s, resumed=False)
        self._load(s)
        return []

    def _load_into_live(self, s: Session, *, resumed: bool) -> list[str]:
        shards = s.run.shards("export"), s.run.shards("embed")
        return load_into_live(s.store, self._shadow(s), *shards, s.ledger, s.run, resumed=resumed)

    def _settle(self, s: Session, *, embedding: bool = True) -> list[str]:
        """Finish a carry that was killed half-way: what the ledger knows must be in the shadow.

        Args:
            embedding: False where the new model is not to be asked: what is not embedded yet, the
                ledger does not know, and the next comparison finds it again.

        Returns the ids of rows left alone because a live shadow has newer ones.
        """
        exports, embeds = s.run.shards("export"), s.run.shards("embed")
        if embedding and any(
            stem not in embeds or embeds[stem].source != shard.sha256
            for stem, shard in exports.items()
        ):
            self._embed(s)
            embeds = s.run.shards("embed")
        if not not_loaded(s.run, embeds):
            return []
        if last_move(s.run) == "swap":
            return self._load_into_live(s, resumed=True)
        load(s.store, self._shadow(s), exports, embeds, s.ledger, s.run, self.progress)
        return []

    def _catch_up(self, s: Session) -> int:
        return catch_up(
            s.source_store, s.source.id, s.source.name, self.manifest.source.where, s.run, s.ledger,
            lambda id, difference: self._carry(s, id, difference),
        )  # fmt: skip

    def _source_difference(self, s: Session) -> Difference:
        where, since = self.manifest.source.where, compared_until(s.run)
        return find_difference(s.source_store, s.source.id, where, s.ledger, since=since)

    def _verification(self, s: Session) -> Verification:
        manifest = self.manifest
        old_embedder = s.old_embedder
        return Verification(
            run=s.run, store=s.store, shadow_id=self._shadow(s), source_metric=s.source.metric,
            target_metric=manifest.target.metric or s.source.metric, template=s.template,
            embedder=s.embedder, old_embedder=old_embedder, old_model_note=s.old_model_note,
            ledger=s.ledger, settings=manifest.verify, source_store=s.source_store,
            source_id=s.source.id,
        )  # fmt: skip

    def _verify(self, s: Session) -> Verdict:
        _ = s.fingerprint  # the model must still be the one that embedded
        spent = s.meter()
        verdict = self._verification(s).verdict(self.progress)
        if last_move(s.run) == "swap":
            verdict = replace(verdict, gates=(*verdict.gates, self._late_gate(s)))
        data = json.dumps(verdict.to_dict(), ensure_ascii=False, indent=2).encode()
        write_atomic(s.run.path / VERDICT_FILE, data)
        swap = self._swap_note(s)
        s.run.journal.append("verdict", passed=verdict.passed, swap=swap, **spent())
        self._write_report(s.run)
        return verdict

    def _late_gate(self, s: Session) -> Gate:
        """Whether everything written to the old collection is in the live one."""
        old_id, new_id = self._both_ids(s)
        found = find_late(s.source_store, old_id, self.manifest.source.where, s.run, s.ledger)
        late, conflicts = without_conflicts(s.store, new_id, found, s.ledger)
        ids = [*late.changed, *late.deleted]
        message = f"{len(ids):,} writes to the old collection are not in the live one"
        figures = {"late": len(ids), "conflicts": len(conflicts)}
        samples = {"late": ids[:20], "conflicts": conflicts[:20]}
        return Gate("late writes", "fail" if ids else "pass", message, figures, samples)

    def _swap_note(self, s: Session) -> dict[str, Any]:
        """For the report: what a swap may claim as things stand, or why none can be made."""
        try:
            source = s.source_store.resolve(self.manifest.source.collection)
            return choose_kind(s.source_store, self.manifest, source).to_dict()
        except PreflightError as error:
            return {"refused": error.message, "hint": error.hint}

    def _verify_slice(self, s: Session, part: str) -> Verdict:
        verdict = self._verification(s).slice_verdict(part, self.progress)
        s.run.journal.append("slice-verdict", slice=part, passed=verdict.passed)
        return verdict

    # Stage 5

    def _shadow(self, s: Session) -> str:
        id = shadow_id(s.run)
        if id is None:
            raise UsageError(f"{self.manifest.name}: there is no shadow yet", "Use `reembed run`.")
        return id

    def _both_ids(self, s: Session) -> tuple[str, str]:
        """Object ids of the old and of the new collection."""
        return s.source.id, self._shadow(s)

    def _swap(self, s: Session, dry_run: bool) -> SwapResult:
        manifest, run = self.manifest, s.run
        if pending_move(run) == "swap" or swap_unfinished(run):
            if dry_run:
                return replace(self._outcome(s, "swap", False), messages=["it is begun already"])
            return self._finish_swap(s)
        if last_move(run) == "swap":
            return replace(self._outcome(s, "swap", True), messages=["it is swapped already"])
        if run_state(run) == "cleaned":
            raise self._wrong_state(run, "cleaned")
        self._require_verdict(s)
        source = s.source_store.resolve(manifest.source.collection)
        if source.id != s.source.id:
            raise SourceChangedError(
                f"{manifest.source.collection!r} leads to another collection (id {source.id}) than "
                f"the one that was exported (id {s.source.id})",
                "Somebody deleted, restored or swapped it; look at the store before going on.",
            )
        kind = choose_kind(s.source_store, manifest, source)
        if dry_run:
            return self._outcome(s, "swap", False, kind)
        _ = s.fingerprint  # the model must still be the one that embedded
        if last_move(run) == "rollback":
            self._resync(s)
        self._settle(s)
        caught_up = self._catch_up(s)
        run_before(manifest.swap.before, self._hook_variables(s, "swap"))
        with self._writes_held(s, kind):
            caught_up += self._catch_up(s)
            if caught_up:
                self._check_integrity(s)
            self._move(s, "swap", kind)
            return replace(self._finish_swap(s), caught_up=caught_up)

    def _writes_held(self, s: Session, kind: SwapPlan) -> contextlib.AbstractContextManager[None]:
        if kind.kind == "config":  # no name moves
            return contextlib.nullcontext()
        return writes_held(s.store, s.run, self.manifest.live)

    def _release_writes(self, s: Session) -> None:
        if s.begun:
            release_writes(s.store, s.run, self.manifest.live)

    def _finish_swap(self, s: Session) -> SwapResult:
        """What is left of a swap that was begun: move, sweep, hook, in a later call if need be."""
        run = s.run
        if pending_move(run) == "swap":
            finish_move(s.store, run, "swap")
        settled = self._settle(s)
        kind = self._swap_kind(s)
        receipt = Receipt(**run.events("swap-done")[-1]["receipt"])
        result = self._sweep_after(s, receipt)
        conflicts = sorted({*settled, *result.conflicts})
        messages = run_after(self.manifest.swap.after, self._hook_variables(s, "swap"))
        run.journal.append("swap-finished", swept=result.swept)
        return replace(
            result, kind=kind.kind, guarantee=kind.guarantee, gap_seconds=receipt.gap_seconds,
            conflicts=conflicts, messages=[*result.messages, *messages],
        )  # fmt: skip

    def _swap_kind(self, s: Session) -> SwapPlan:
        """How this run's newest swap moves the live name."""
        kind = s.run.events("swap-begun")[-1]["kind"]
        guarantee = s.store.capabilities.swap_kinds.get(kind, "")
        return SwapPlan(
            kind, CONFIG_GUARANTEE if kind == "config" else guarantee, self.manifest.live
        )

    def _require_verdict(self, s: Session) -> None:
        verdict = read_verdict(s.run)
        if verdict is None or run_state(s.run) in (*UNLOADED, "loaded"):
            raise GateError(
                f"{self.manifest.name}: there is no verdict on this run yet", "Use `reembed run`."
            )
        if not verdict.passed:
            raise gate_error(verdict)
        for event in reversed(s.run.events("verdict", "slice-verdict")):
            if event["event"] == "verdict":
                break
            if not event["passed"]:
                raise GateError(
                    f"{self.manifest.name}: slice {event['slice']} failed after the last verdict",
                    "Use `reembed verify` to check everything again.",
                )

    def _check_integrity(self, s: Session) -> None:
        """The integrity gate on what was caught up with since the verdict."""
        verification = self._verification(s)
        deltas = [stem for stem in verification.embeds if stem.startswith(DELTA)]
        gate: Gate = verification.integrity(self.progress, deltas)
        if gate.status != "pass":
            raise gate_error(Verdict(s.run.run_id, verification.seed, (gate,)))

    def _move(self, s: Session, action: Literal["swap", "rollback"], kind: SwapPlan) -> Receipt:
        old_id, new_id = self._both_ids(s)
        parked = parked_name(self.manifest.live, s.run.run_id)
        if action == "swap":
            model = self.manifest.model.settings()
            exchange = Exchange(self.manifest.live, new_id, old_id, parked, model)
        else:
            shadow_name = str(s.run.events("shadow-created")[-1]["name"])
            old_model = self.manifest.source.model
            settings = old_model.settings() if old_model else s.source.model
            exchange = Exchange(self.manifest.live, old_id, new_id, shadow_name, settings)
        return move_live_name(s.store, s.run, action, kind.kind, exchange)

    def _sweep(self, s: Session) -> tuple[int, list[str]]:
        old_id, new_id = self._both_ids(s)
        return sweep(
            s.source_store, old_id, s.store, new_id, self.manifest.source.where, s.run, s.ledger,
            lambda id, difference: self._carry(s, id, difference),
        )  # fmt: skip

    def _sweep_until_quiet(self, s: Session, swept: int) -> tuple[int, list[str], bool]:
        """Sweep again while a sweep finds something, for SWEEP_SECONDS. Returns the records
        carried, the ids left alone, and whether the last sweep found nothing to carry."""
        total, conflicts, deadline = 0, set[str](), time.monotonic() + SWEEP_SECONDS
        while swept and time.monotonic() < deadline:
            swept, more = self._sweep(s)
            total += swept
            conflicts |= {*more}
        return total, sorted(conflicts), not swept

    def _sweep_after(self, s: Session, receipt: Receipt) -> SwapResult:
        """Carry what was written to the old collection between catch-up and move."""
        swept, conflicts = self._sweep(s)
        messages = [self._config_change(s)] if receipt.kind == "config" else []
        if receipt.kind != "config":
            self._release_writes(s)
            more_swept, more, quiet = self._sweep_until_quiet(s, swept)
            swept, conflicts = swept + more_swept, sorted({*conflicts, *more})
            messages += [] if quiet else [STILL_WRITTEN]
        if receipt.intruder:
            merged, more = merge_intruder(
                s.store, receipt.intruder, self._shadow(s), s.ledger,
                lambda id, difference: self._carry(s, id, difference),
            )  # fmt: skip
            swept, conflicts = swept + merged, conflicts + more
            messages.append(
                f"somebody made a collection under the live name in the gap; {merged:,} records of "
                f"it were merged, and it is kept as {receipt.intruder!r}"
            )
        return replace(
            self._outcome(s, "swap", True), swept=swept, conflicts=conflicts, messages=messages
        )

    def _config_change(self, s: Session) -> str:
        manifest = self.manifest
        name = str(s.run.events("shadow-created")[-1]["name"])
        return (
            f"change the application's configuration: store {manifest.target_url}, collection "
            f"{name!r} instead of {manifest.live!r}, model {manifest.model.provider} "
            f"{manifest.model.name} with {s.dimensions} dimensions, query prefix "
            f"{manifest.model.query_prefix!r}"
        )

    def _rollback(self, s: Session, dry_run: bool, accept_loss: bool) -> SwapResult:
        kind = self._swap_kind(s)
        if dry_run:
            return self._outcome(s, "rollback", False, kind)
        old_id, _ = self._both_ids(s)
        if s.source_store.describe_id(old_id) is None:
            raise PreflightError(
                f"the old collection (id {old_id}) is gone, so there is nothing to go back to",
                "The run's export shards still hold every record with its old vector.",
            )
        variables = self._hook_variables(s, "rollback")
        way_back, before = self._way_back(s), CarriedBack()
        if pending_move(s.run) == "rollback":
            receipt = finish_move(s.store, s.run, "rollback")
            late = way_back.carry_late()
        elif rollback_unfinished(s.run):
            receipt = Receipt(**s.run.events("rollback-done")[-1]["receipt"])
            late = way_back.carry_late()
        else:
            run_before(self.manifest.swap.before, variables)
            self._settle(s, embedding=False)
            before = way_back.carry(accept_loss)
            with self._writes_held(s, kind):
                if before.carried:  # the application writes: carry what came meanwhile
                    before.add(way_back.carry(accept_loss))
                receipt = self._move(s, "rollback", kind)
                late = way_back.carry_late()
        self._release_writes(s)
        messages = self._carry_late_until_quiet(way_back, late)
        messages += _left_messages(late) + run_after(self.manifest.swap.after, variables)
        s.run.journal.append("rollback-finished", carried=late.carried)
        return replace(
            self._outcome(s, "rollback", True, kind), caught_up=before.carried, lost=before.lost,
            swept=late.carried, conflicts=late.conflicts, gap_seconds=receipt.gap_seconds,
            messages=messages,
        )  # fmt: skip

    def _carry_late_until_quiet(self, way_back: WayBack, late: CarriedBack) -> list[str]:
        """As `_sweep_until_quiet`, the other way; adds to `late`. Returns messages."""
        found, deadline = late.carried, time.monotonic() + SWEEP_SECONDS
        while found and time.monotonic() < deadline:
            more = way_back.carry_late()
            found = more.carried
            late.add(more)
        return [STILL_WRITTEN_BACK] if found else []

    def _way_back(self, s: Session) -> WayBack:
        old_id, new_id = self._both_ids(s)
        return WayBack(
            s.run, s.store, new_id, s.source_store, old_id, s.ledger, s.template,
            lambda: (s.old_embedder, s.old_model_note), lambda: s.old_cache,
        )  # fmt: skip

    def _sweep_back(self, s: Session) -> SwapResult:
        """After a rollback: what handles that were held wrote to the new collection."""
        late = self._way_back(s).carry_late()
        return replace(
            self._outcome(s, "sweep", True), swept=late.carried, conflicts=late.conflicts,
            messages=_left_messages(late),
        )  # fmt: skip

    def _hook_variables(self, s: Session, action: str) -> dict[str, str]:
        shadow = str(s.run.events("shadow-created")[-1]["name"])
        parked = parked_name(self.manifest.live, s.run.run_id)
        return hook_variables(self.manifest, s.run, action, shadow, parked, s.dimensions)

    def _clean(self, s: Session, dry_run: bool) -> SwapResult:
        if run_state(s.run) == "cleaned":
            return replace(self._outcome(s, "clean", True), messages=["it is cleaned already"])
        if pending_move(s.run) or swap_unfinished(s.run):
            raise UsageError(
                f"{self.manifest.name}: a move of the live name was begun and not finished",
                "Run the same command (swap or rollback) again first.",
            )
        if dry_run:
            return self._outcome(s, "clean", False)
        self._release_writes(s)
        done = self._drop_old(s) if last_move(s.run) == "swap" else self._drop_shadow(s)
        s.run.journal.append("cleaned", what=done)
        return replace(self._outcome(s, "clean", True), messages=[done])

    def _drop_old(self, s: Session) -> str:
        manifest = self.manifest
        if self._swap_kind(s).kind == "config":
            raise PreflightError(
                f"no name moved, so reembed cannot see which collection the application reads; "
                f"{manifest.source.collection!r} stays",
                "Once its configuration has changed, delete the old collection yourself.",
            )
        self._settle(s, embedding=False)
        old_id, new_id = self._both_ids(s)
        return drop_old(
            s.source_store, s.run, old_id, new_id, manifest.live, s.ledger, manifest.source.where,
            manifest.swap.keep_old_seconds,
        )  # fmt: skip

    def _drop_shadow(self, s: Session) -> str:
        """Give up a run that is not swapped: delete its shadow, keep its shards and the source."""
        id = shadow_id(s.run)
        if id is None:
            return "there was no shadow to delete"
        if shadow_was_live(s.run) and s.store.describe_id(id) is not None:
            self._refuse_late(s)
        same_store = self.manifest.target_url == self.manifest.source.url
        return drop_shadow(s.store, id, self.manifest.live if same_store else None)

    def _outcome(
        self, s: Session, action: str, done: bool, kind: SwapPlan | None = None
    ) -> SwapResult:
        """What an action did or, as a dry run, would do."""
        shadow = s.run.last("shadow-created")
        name = str(shadow["name"]) if shadow else ""
        parked = parked_name(self.manifest.live, s.run.run_id)
        back = action == "rollback" or (last_move(s.run) == "rollback" and action != "swap")
        return SwapResult(
            action, s.run.run_id, done, self.manifest.live,
            collection=parked if back else name, parked=name if back else parked,
            kind=kind.kind if kind else "", guarantee=kind.guarantee if kind else "",
        )  # fmt: skip


def _left_messages(carried: CarriedBack) -> list[str]:
    if not carried.left:
        return []
    return [
        f"{len(carried.left):,} rows written to the new collection late cannot go back and stay "
        f"there, e.g. {', '.join(carried.left[:5])}"
    ]
