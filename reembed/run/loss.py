"""What is too much to lose without a person's word: the one rule for every move and every carry.

A wiped collection looks just like a very thorough deletion. So no command takes all records of a
collection, or more than half of them, from a live name, be it in one step or a little at a time,
unless it was called with `--accept-loss`; and what was accepted is journalled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from reembed.errors import LossError
from reembed.run import events
from reembed.run.directory import RunDir
from reembed.run.ledger import Ledger


@dataclass(frozen=True)
class Loss:
    """What a collection has lost, or would lose.

    Attributes:
        collection: which one, in words.
        had: records that this run knows of it, or that are in the other collection.
        lost: how many of them it lacks.
    """

    collection: str
    had: int
    lost: int

    @property
    def is_mass(self) -> bool:
        """Whether it is all there were, or more than half."""
        return self.lost > 0 and (self.lost >= self.had or 2 * self.lost > self.had)

    @property
    def left(self) -> int:
        return max(0, self.had - self.lost)

    def __str__(self) -> str:
        return f"{self.collection} has lost {self.lost:,} of its {self.had:,} records"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def loss_in(
    collection: str, changed: Sequence[str], deleted: Sequence[str], run: RunDir, ledger: Ledger,
    *, moved_only: bool = False,
) -> Loss:  # fmt: skip
    """What a collection has lost of what the run knows.

    Args:
        changed, deleted: ids that it has new or otherwise, and that it has no more.
        moved_only: whether it is the new collection, which never had the quarantined records.
    """
    total, quarantined = ledger.counts()
    total -= quarantined if moved_only else 0
    new = ledger.count_unknown(changed)
    at_once = Loss(collection, total, len(deleted))
    most = max(run.history.most_records - (quarantined if moved_only else 0), total)
    by_and_by = Loss(collection, most, max(0, most - (total - len(deleted) + new)))
    return by_and_by if by_and_by.is_mass and not at_once.is_mass else at_once


@dataclass(frozen=True)
class LossGuard:
    """Asks of every loss whether it may be.

    Attributes:
        accepted: whether the command was called with `--accept-loss`.
    """

    run: RunDir
    accepted: bool

    def accepts(self, loss: Loss) -> bool:
        """Whether to go on with it: it is no mass of records, or somebody said so."""
        if not loss.is_mass:
            return True
        if self.accepted:
            self.run.history.record(events.LossAccepted(**loss.to_dict(), left=loss.left))
        return self.accepted

    def refuse(self, loss: Loss, hint: str, what: str = "") -> None:
        """Raise LossError unless it is accepted.

        Args:
            hint: how to go on.
            what: what would come of it, to follow the counts.
        """
        if not self.accepts(loss):
            raise LossError(f"{loss}{what}", hint)


def worst(*losses: Loss) -> Loss:
    """The first of these that is a mass, or else the first."""
    return next((loss for loss in losses if loss.is_mass), losses[0])
