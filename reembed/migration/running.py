"""What `run` does with a session, step by step: `Migration.run` has their order."""

from __future__ import annotations

from reembed.cutover.rollback import rollback_run
from reembed.cutover.swap import swap_run
from reembed.embedders.registry import expect
from reembed.quality.verdict import Verdict
from reembed.report.results import SwapResult
from reembed.stages.session import Session
from reembed.sync.build import Stage, run_stages
from reembed.sync.difference import find_difference
from reembed.sync.follow import retry_quarantined
from reembed.verify.ahead import Ahead
from reembed.verify.shadow import mend_shadow
from reembed.verify.verdicts import verify_run


def expect_model(s: Session, until: Stage) -> None:
    """Begin to import what the model needs, where it is going to be asked."""
    model = s.manifest.new_model
    embeds = not s.begun or (until != "export" and s.run.history.state in ("created", "exported"))
    if model is not None and embeds:
        expect(model)


def finish_begun_move(s: Session) -> SwapResult | None:
    """Finish a swap or a rollback that a killed call has begun; None if there is none."""
    if s.run.history.pending_move == "rollback":
        return rollback_run(s, dry_run=False)
    if s.run.history.pending_move or s.run.history.swap_unfinished:
        return swap_run(s, dry_run=False)
    return None


def is_as_verified(s: Session) -> bool:
    """Whether the run has passed, and its source has not changed since."""
    history = s.run.history
    if history.state != "verified":
        return False
    return not find_difference(s.old, s.ledger, since=history.compared_until)


def build_and_verify(s: Session, until: Stage, *, retry: bool) -> Verdict | None:
    """The stages up to `until`, and the verdict where it comes before that: else None.

    Args:
        retry: try the records again that earlier calls have quarantined.
    """
    resumed, failed = bool(s.run.shards("embed")), s.run.history.state == "failed"
    verifies = until in ("verify", "swap")
    with Ahead(s) as ahead:
        run_stages(s, until, ahead.begin if verifies else None)
        if retry and resumed and until not in ("export", "embed"):
            for message in retry_quarantined(s):
                s.progress.note(message)
        if not verifies:
            return None
        if failed:  # perhaps since somebody harmed the shadow
            mend_shadow(s)
        return verify_run(s, ahead)
