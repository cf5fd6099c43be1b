"""Parameters that cross: every value in the tests of CI, every combination in the long ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any

import pytest


def crossed(*axes: Iterable[Any]) -> list[Any]:
    """Every combination of one value of each axis, for `parametrize`. Those that are not needed to
    have each value once belong to `make soak`, as the mark `long` says."""
    values = [list(axis) for axis in axes]
    covering = {tuple(n % len(axis) for axis in values) for n in range(max(map(len, values)))}
    return [
        pytest.param(*_at(values, places), marks=() if places in covering else pytest.mark.long)
        for places in product(*(range(len(axis)) for axis in values))
    ]


def _at(values: Sequence[Sequence[Any]], places: Sequence[int]) -> list[Any]:
    return [axis[place] for axis, place in zip(values, places, strict=True)]
