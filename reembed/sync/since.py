"""What was written since a swap: to the collection that was moved, and to the one that is live.

A job that calls a finished migration again is to be told what is not carried, and by which command
it is, and never that all is done.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from reembed.report.results import Differs
from reembed.run.ledger import Ledger
from reembed.stages.session import Session
from reembed.sync.difference import Difference, find_difference, find_late, without_conflicts
from reembed.sync.mend import has_ledger


@dataclass(frozen=True)
class Since:
    """What differs now from what was moved.

    Attributes:
        source: in the collection that was moved, and not in the live one.
        conflicts: of its records, those that the live collection has changed itself.
        live: in the collection that is live: the application's own writes, which are where they
            belong.
        messages: both in words, with the commands that go on.
    """

    source: Differs = field(default_factory=Differs)
    conflicts: int = 0
    live: Differs = field(default_factory=Differs)
    messages: list[str] = field(default_factory=list)


def counted(difference: Difference, ledger: Ledger) -> Differs:
    """The counts of a difference; what the ledger does not know was added."""
    added = ledger.count_unknown(difference.changed)
    return Differs(added, len(difference.changed) - added, len(difference.deleted))


def since_swap(s: Session) -> Since:
    """Compare both collections of a swapped run with what was moved. Changes neither."""
    done = ["already swapped; nothing to do"]
    if s.run.history.state != "swapped" or not has_ledger(s):
        return Since(messages=done)
    source, live, conflicts, told = Differs(), Differs(), list[str](), list[str]()
    old, new = s.old.describe(), s.new.describe()
    if old is not None and new is not None:
        found = find_late(s.old, s.run, s.ledger, since=s.run.history.compared_until)
        kept, conflicts = without_conflicts(s.new, found, s.ledger)
        source = counted(kept, s.ledger)
        told += _told_of_source(s, source, old.name, conflicts)
    if new is not None:
        live = counted(find_difference(s.new, s.ledger, include_quarantined=False), s.ledger)
        if live:
            told.append(
                f"written to the live collection {new.name!r} since the swap: {live}; these are "
                "live already, so there is nothing to carry"
            )
    return Since(source, len(conflicts), live, [*(["already swapped"] if source else done), *told])


def _told_of_source(s: Session, source: Differs, name: str, conflicts: list[str]) -> list[str]:
    if not source and not conflicts:
        return []
    told = []
    path = s.run.shown_manifest(s.manifest)
    if source:
        told.append(
            f"{name!r} differs from what was moved: {source}. `reembed sweep {path}` carries that "
            "into the new collection"
        )
        if s.manifest.target_url != s.manifest.source.url:
            told.append(
                "where that happens every day, `mode: follow` in the manifest makes it a job: each "
                "`reembed run --swap` then carries what changed (docs/nightly.md)"
            )
    if conflicts:
        told.append(
            f"{len(conflicts):,} records of {name!r} have changed in the new collection too, which "
            f"keeps its own, e.g. {', '.join(conflicts[:5])}"
        )
    return told
