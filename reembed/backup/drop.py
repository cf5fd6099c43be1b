"""When a backup is refused: the collection is empty, or has lost too much since the last good one.

An emptied collection looks to a program just like one that has always been empty. So a snapshot of
it is kept apart, and never counts among the good ones that `prune` keeps and `restore` chooses, but
where a person says that the records were meant to go.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa

from reembed.backup.snapshot import Snapshot
from reembed.errors import PreflightError
from reembed.manifest.template import look_up
from reembed.records import metadata_object

MOST_VALUES = 100_000
"""Different values of a metadata key whose records can be counted one by one."""
NAMED = 5


class ValueCounts:
    """Counts records by the values of metadata keys.

    Args:
        keys: of the metadata; `a.b` leads into objects, as in a template.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self.counts: dict[str, dict[str, int]] = {key: {} for key in keys}

    def add(self, records: pa.RecordBatch) -> None:
        """Count records in. One that lacks a key, or has null there, is not counted by it.

        Raises:
            PreflightError: a key has too many values.
        """
        if not self.counts:
            return
        for text in records.column("metadata").to_pylist():
            metadata = metadata_object(text)
            for key, counts in self.counts.items():
                value = look_up(metadata, key)
                if value is not None:
                    name = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
                    counts[name] = counts.get(name, 0) + 1
        for key, counts in self.counts.items():
            if len(counts) > MOST_VALUES:
                raise PreflightError(
                    f"--by {key}: the records have more than {MOST_VALUES:,} different values of "
                    "this key",
                    "Choose a key that many records share, such as a user or a tenant.",
                )


def refusal(
    records: int, by: Mapping[str, Mapping[str, int]], last: Snapshot | None, max_drop: float
) -> str:
    """Why so many records are no good backup, in words; empty if they are.

    Args:
        records, by: what there is now.
        last: the last good snapshot.
        max_drop: percent of its records that may be gone, in all and of each value.
    """
    if not records:
        had = f", and {last.id} held {last.records:,} records" if last else ""
        return f"the collection is empty{had}"
    if last is None:
        return ""
    if _collapsed(records, last.records, max_drop):
        return f"it holds {records:,} records, and {last.id} held {last.records:,}"
    found = [
        f"{key}={value!r} has {counts.get(value, 0):,} records, and had {had:,}"
        for key, counts in by.items()
        for value, had in last.by.get(key, {}).items()
        if _collapsed(counts.get(value, 0), had, max_drop)
    ]
    return _listed(found)


def _collapsed(now: int, before: int, max_drop: float) -> bool:
    return now == 0 < before or 100 * (before - now) > max_drop * before


def _listed(found: Sequence[str]) -> str:
    more = f"; and {len(found) - NAMED:,} values more" if len(found) > NAMED else ""
    return "; ".join(found[:NAMED]) + more
