"""Counts and a few sample ids of each thing that a gate found."""

from __future__ import annotations

from collections.abc import Sequence

SAMPLES = 20
"""Ids kept of each finding: enough to look, little enough to print."""


class Findings:
    """What was found, by kind. Every kind is counted, found or not."""

    def __init__(self, kinds: Sequence[str]) -> None:
        self.checked = 0
        self.counts: dict[str, int] = dict.fromkeys(kinds, 0)
        self.samples: dict[str, list[str]] = {}

    def add(self, kind: str, ids: Sequence[str]) -> None:
        """Count `ids`, and keep the first of them."""
        if ids:
            self.counts[kind] += len(ids)
            kept = self.samples.setdefault(kind, [])
            kept += list(ids)[: SAMPLES - len(kept)]

    def problems(self) -> list[str]:
        """`3 missing`, one a kind that was found."""
        return [f"{count:,} {kind}" for kind, count in self.counts.items() if count]
