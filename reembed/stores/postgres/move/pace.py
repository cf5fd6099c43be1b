"""Whether copying keeps up with an application that goes on writing.

Rows that are written before there is an index of the coming vectors cost little to copy, so they
are copied first, until that goes fast. While the index is made nothing can be copied, and what is
written after it has to be put into both indexes: rounds of it have to become shorter, until what a
round leaves fits into the time for which writers may wait. Where they do not, waiting longer does
not help, and somebody has to be told.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from reembed.errors import SourceChangedError
from reembed.stores.postgres.schema.table import Table

QUICK_SECONDS = 0.4
"""What takes no longer need not be done again before the next step."""
LAST_SECONDS = 0.25
"""What is left for the time in which writers wait takes no longer to copy, or, where copying does
not get ahead any more, MOST_SECONDS: writers then wait several times, each time for a part of it,
and between two times there is no time to write much."""
MOST_SECONDS = 2.0
WAIT_SECONDS = 0.5
"""For how long writers have waited at most when the last rows are copied, so that they go on after
less than a second. Where a machine is so busy that the last comparison alone takes as long, rows
get LEAST_SECONDS each time."""
LEAST_SECONDS = 0.1
HELD_SECONDS = 0.2
"""How long writers wait for a group of rows, and, where copying does not get ahead otherwise,
LONGER_SECONDS: they write less then, and each time costs less beside the rows."""
LONGER_SECONDS = 0.5
PAUSE_SHARE, SHORTER_SHARE = 0.25, 0.05
"""How long they have for themselves between two groups, as a share of that; those that wait come
first in any case."""
FALLS = 0.9
"""A round gets ahead if it has at most so many of the rows that the one before it had."""
PATIENCE = 3
"""Rounds in a row that may get no further before copying is said not to keep up."""
STAYS = (
    "Nothing was moved, and what was copied stays. Run again when fewer writes come in, or pause "
    "the writers for the swap."
)


@dataclass
class Round:
    """What one round of copying found.

    Attributes:
        rows: that were written to since the last one.
        seconds: that it took to copy them.
        since: seconds since the last round's end, in which they were written.
    """

    rows: int
    seconds: float
    since: float


@dataclass
class Pace:
    """The rounds of one table's copying.

    Attributes:
        indexed: whether there is an index of the coming vectors, if there is to be one.
        before: how many rows the last round had.
        stalled: how many rounds in a row got no further.
        slow: whether one ever did, so that writers wait longer.
        row_seconds: that a row takes, of the last ones that were copied; 0 where none was.
    """

    indexed: bool = False
    before: int | None = None
    stalled: int = 0
    slow: bool = False
    ended: float = 0.0
    row_seconds: float = 0.0

    @property
    def held_seconds(self) -> float:
        """How long writers may wait for a group of rows."""
        return LONGER_SECONDS if self.slow else HELD_SECONDS

    @property
    def pause_share(self) -> float:
        """How long they have for themselves then, as a share of that."""
        return SHORTER_SHARE if self.slow else PAUSE_SHARE

    def wrote(self, rows: int, seconds: float) -> None:
        """Note how long rows took that were copied."""
        if rows:
            self.row_seconds = seconds / rows

    def fitting(self, table: Table, rows: int, waited: float) -> int:
        """How many of the rows that are left may be copied before writers go on.

        Args:
            waited: seconds for which they have waited by now.

        Raises:
            SourceChangedError: it is too much, and becomes no less.
        """
        most = max(LEAST_SECONDS, WAIT_SECONDS - waited)
        if rows * self.row_seconds <= most:
            return rows
        before, self.before = self.before, rows  # a part may be a small one: any less is ahead
        self.stalled = 0 if before is None or rows < before else self.stalled + 1
        if self.stalled < PATIENCE:
            return min(rows, max(1, int(most / self.row_seconds)))
        self.before, self.stalled = None, 0
        raise SourceChangedError(
            f"{table.label} is written to faster than its new vectors can be copied and indexed "
            f"while writers wait for less than a second: {rows:,} rows are left, and no fewer from "
            "one time to the next",
            STAYS,
        )

    def step(self, rows: int, seconds: float) -> Round:
        """Note a round, which ends now."""
        now = time.monotonic()
        since, self.ended = now - seconds - self.ended, now
        return Round(rows, seconds, since)

    def has_index(self, began: float) -> bool:
        """The index is made; from here on rounds are counted anew. Returns whether that was quick,
        so that nothing has to be copied before writers wait.

        Args:
            began: when the copying before it did, by the monotonic clock.
        """
        self.indexed, self.before, self.stalled, self.row_seconds = True, None, 0, 0.0
        self.ended = time.monotonic()
        return self.ended - began <= QUICK_SECONDS

    def may_index(self, last: Round) -> bool:
        """Whether more rounds before the index would not make less of what comes after it."""
        return last.seconds <= QUICK_SECONDS or not self._gets_ahead(last.rows)

    def is_ready(self, table: Table, last: Round) -> bool:
        """Whether what is left can be copied while writers wait.

        Raises:
            SourceChangedError: it is too much, and becomes no less.
        """
        if not last.rows or last.seconds <= LAST_SECONDS:
            self.before, self.stalled = None, 0
            return True
        if self._gets_ahead(last.rows):
            self.stalled = 0
            return False
        self.stalled, self.slow = self.stalled + 1, True
        if self.stalled < PATIENCE:
            return False
        self.before, self.stalled = None, 0
        if last.seconds <= MOST_SECONDS:
            return True
        written = last.rows / max(last.since + last.seconds, 1e-3)
        raise SourceChangedError(
            f"{table.label} is written to faster than its new vectors can be copied and indexed: "
            f"about {written:.0f} rows a second are written, and {last.rows / last.seconds:.0f} "
            f"copied, so that {last.rows:,} are left, and no fewer from round to round",
            STAYS,
        )

    def _gets_ahead(self, rows: int) -> bool:
        before, self.before = self.before, rows
        return before is None or rows <= FALLS * before
