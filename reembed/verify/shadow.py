"""The shadow right before the live name moves to it: is it still what the verdict saw?

A verdict licenses what it saw. So what was carried after it has to pass the integrity gate, too,
every id and row hash of the shadow is compared once more, and a fresh random sample of its vectors
is held against the embed shards, within the tolerance of that gate. What is missing or has another
vector is put back from the shards, and the gate then has to pass again; what somebody else wrote
there is not overwritten without a word.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from reembed.errors import LossError, SourceChangedError
from reembed.progress import stage
from reembed.quality.findings import Findings
from reembed.quality.integrity import KINDS
from reembed.quality.verdict import Verdict
from reembed.report.results import gate_error
from reembed.run import events
from reembed.run.directory import DELTA
from reembed.stages.session import Session
from reembed.sync.difference import find_difference
from reembed.sync.mend import restore_shards, resync
from reembed.verify.checks import verification
from reembed.verify.corpus import Page
from reembed.verify.gates import Verification

SAMPLE = 2_000
"""Vectors looked at; a fault in 0.25 % of them is seen with 99 %."""
SHARDS = 40
"""Shards that they are taken from."""
SHOWN = 5


def require_shadow(s: Session) -> None:
    """Raise SourceChangedError if the shadow is gone."""
    if s.new.describe() is None:
        raise SourceChangedError(
            f"the shadow (id {s.new.id}) is gone: somebody deleted it",
            f"Move the run directory {s.run.path} away and run again; texts paid for are kept in "
            "the cache.",
        )


def check_shadow(s: Session) -> list[str]:
    """`mend_shadow`, and the integrity gate after it if there was something to mend.

    Raises:
        GateError: it could not be mended.
    """
    require_shadow(s)
    checks = verification(s)
    mended = _mended(s, checks)
    if not mended:
        return []
    _require_integrity(s, checks)
    return [f"put back from the run's shards, and verified again: {what}" for what in mended]


def mend_shadow(s: Session) -> list[str]:
    """Look whether the shadow is what the run's shards say, and put back what it lacks. Returns
    what was mended, in words.

    Raises:
        SourceChangedError: it is gone.
        LossError: it holds records that somebody else wrote, and nobody accepted that they go.
    """
    require_shadow(s)
    return _mended(s, verification(s))


def _mended(s: Session, checks: Verification) -> list[str]:
    mended = _put_rows_back(s)
    if _sample_is_off(checks):
        rewritten = restore_shards(s.new, _off_pages(checks), s.run)
        mended.append(f"{rewritten:,} records of the shadow whose vectors were not as made")
    if mended:
        s.run.history.record(events.ShadowMended(what=tuple(mended)))
    return mended


def check_deltas(s: Session) -> None:
    """The integrity gate on the deltas and on shards that were made again, if some came after the
    verdict: in this call, or in an earlier one that a hold, a hook or a kill stopped before the
    move. What this session has checked is not checked again, so that writers wait for what came
    last alone."""
    after, written = set[str](), dict[str, str]()
    for event in s.run.history.all(events.VerdictGiven, events.ShardWritten):
        if isinstance(event, events.VerdictGiven):
            after.clear()
        elif event.stage == "embed":
            after.add(event.shard.stem)
            written[event.shard.stem] = event.shard.sha256
    if not after:
        return
    checks = verification(s)
    wanted = [stem for stem in checks.embeds if stem.startswith(DELTA) or stem in after]
    stems = [stem for stem in wanted if s.checked.get(stem) != written.get(stem, "")]
    if not stems:
        return
    _require_integrity(s, checks, stems)
    s.checked |= {stem: written.get(stem, "") for stem in stems}


def _require_integrity(
    s: Session, checks: Verification, stems: Sequence[str] | None = None
) -> None:
    gate = checks.integrity(s.progress, stems)
    if gate.status != "pass":
        raise gate_error(Verdict(s.run.run_id, checks.seed, (gate,)))


def check_count(s: Session) -> None:
    """The last look, while writers wait. Raises SourceChangedError if the shadow has changed."""
    total, quarantined = s.ledger.counts()
    there = s.new.count()
    if there != total - quarantined:
        raise SourceChangedError(
            f"the shadow holds {there:,} records instead of {total - quarantined:,}: somebody "
            "wrote to it while the name was about to move",
            "Nothing was moved. Run the same command again: it compares the shadow, and repairs "
            "it.",
        )


def _put_rows_back(s: Session) -> list[str]:
    """Compare every row hash, and write from the shards what is missing."""
    found = find_difference(s.new, s.ledger, include_quarantined=False)
    if found.changed and not s.accept_loss:
        raise LossError(
            f"the shadow holds {len(found.changed):,} records that somebody else wrote or changed, "
            f"e.g. {', '.join(sorted(found.changed)[:SHOWN])}",
            "Write what you want to keep of them to the live collection: the run copies it from "
            "there. With --accept-loss the run's own records are put in their place.",
        )
    if not found:
        return []
    if found.changed:
        s.run.history.record(events.ShadowOverwritten(records=len(found.changed)))
    resync(s.new, s.run, s.ledger)
    told = [f"{len(found.deleted):,} records that the shadow lacked"] if found.deleted else []
    if found.changed:
        told.append(f"{len(found.changed):,} that somebody else had written or changed in it")
    return told


@stage("look at the new collection's vectors")
def _sample_is_off(checks: Verification) -> bool:
    """Whether some of a fresh random sample of records are not served as they were embedded."""
    corpus, chance = checks.corpus, random.SystemRandom()
    stems = [stem for stem, shard in corpus.embeds.items() if shard.rows]
    stems = chance.sample(stems, min(SHARDS, len(stems)))
    for stem in stems:
        page = corpus.page(stem)
        size = min(len(page.ids), -(-SAMPLE // len(stems)))
        if size and _is_off(checks, page, sorted(chance.sample(range(len(page.ids)), size))):
            return True
    return False


def _off_pages(checks: Verification) -> dict[str, list[str]]:
    """The ids of the shards of which not every record is served as it was embedded, by stem."""
    corpus = checks.corpus
    off: dict[str, list[str]] = {}
    for stem in corpus.embeds:
        page = corpus.page(stem)
        if page.ids and _is_off(checks, page, list(range(len(page.ids)))):
            off[stem] = page.ids
    return off


def _is_off(checks: Verification, page: Page, rows: list[int]) -> bool:
    findings = Findings(KINDS)
    checks.check_served(page.at(rows), findings)
    return bool(findings.problems())
