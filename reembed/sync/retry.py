"""Quarantine is not final: records that were set aside are exported, embedded and loaded again, as
a delta like any other. What fails again is quarantined again, with the reason of now."""

from __future__ import annotations

from collections.abc import Sequence

from reembed.run.quarantine import quarantined_ids
from reembed.session import Session
from reembed.sync.delta import carry
from reembed.sync.difference import Difference


def retry_quarantined(s: Session, left: Sequence[str] = ()) -> list[str]:
    """Try all records in quarantine again. Returns what to tell of it.

    Args:
        left: ids of rows that recovery left alone, which are told too.
    """
    ids = quarantined_ids(s.run, s.ledger)
    if not ids:
        return ["nothing is in quarantine"]
    left = [*left, *carry(s, s.old, Difference(changed=ids))]
    known = s.ledger.lookup(ids)
    again = sum(known[id].quarantined for id in ids if id in known)
    told = [f"tried {len(ids):,} quarantined records again: {len(ids) - again:,} are moved"]
    if left:
        told.append(f"{len(left):,} were left alone: the live collection has newer ones")
    return told
