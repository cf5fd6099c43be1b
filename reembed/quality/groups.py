"""Results by a metadata key: a model may be better on the whole and lose one namespace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

MOST_KEYS = 2
FEWEST_VALUES, MOST_VALUES = 2, 20
COVERED = 0.5
"""A key must be set on at least this share of the records."""
LONGEST_VALUE = 60


def grouping_keys(metadatas: Sequence[Mapping[str, Any]]) -> list[str]:
    """Up to two keys that part the records into 2 to 20 groups, those set most often first."""
    values: dict[str, set[str]] = {}
    counts: dict[str, int] = {}
    for metadata in metadatas:
        for key, value in metadata.items():
            if isinstance(value, str | bool | int) and len(str(value)) <= LONGEST_VALUE:
                counts[key] = counts.get(key, 0) + 1
                if len(found := values.setdefault(key, set())) <= MOST_VALUES:
                    found.add(str(value))
    fit = [key for key, found in values.items()
           if FEWEST_VALUES <= len(found) <= MOST_VALUES
           and counts[key] >= COVERED * len(metadatas)]  # fmt: skip
    return sorted(fit, key=lambda key: (-counts[key], len(values[key]), key))[:MOST_KEYS]


def group_table(
    metadatas: Sequence[Mapping[str, Any]],
    new: Sequence[bool],
    old: Sequence[bool] | None,
) -> dict[str, list[dict[str, Any]]]:
    """For each key of `grouping_keys` and each of its values: pairs, and shares found.

    Args:
        metadatas: of the record that each pair of query and right answer is about.
        new: whether the new model found the pair's record.
        old: whether the old one did; None where it was not asked.
    """
    tables = {}
    for key in grouping_keys(metadatas):
        rows: dict[str, list[int]] = {}
        for place, metadata in enumerate(metadatas):
            if key in metadata:
                rows.setdefault(str(metadata[key]), []).append(place)
        tables[key] = [
            {"value": value, "pairs": len(places), "new": _share(new, places),
             "old": None if old is None else _share(old, places)}
            for value, places in sorted(rows.items())
        ]  # fmt: skip
    return tables


def _share(found: Sequence[bool], places: Sequence[int]) -> float:
    return round(sum(found[place] for place in places) / len(places), 6)
