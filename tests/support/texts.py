"""Texts that differ, and the vectors that the tests' own models give them."""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


CASES = ROOT / "tests" / "support" / "cases"


WORDS = """
    alcove anchor beacon bishop candle cinder copper dagger dragon easel ember falcon fiddle garnet
    glacier gravel hamlet harbour hollow inkwell island jasper juniper kettle keystone ladder
    lantern marble meadow needle orchard oyster parcel pebble quarry quiver raven ribbon saddle
    sickle thistle timber umbrella velvet violin walnut yonder zephyr
""".split()  # noqa: SIM905


def sentence(number: int) -> str:
    """Text number `number`, unlike every other one."""
    chance = random.Random(number)
    return f"record {number} {' '.join(chance.choice(WORDS) for _ in range(14))}"


def vector_of(model: str, text: str) -> Any:
    """The vector that a model of `cases/counting_model.py` gives, uncounted."""
    spec = importlib.util.spec_from_file_location("cases_model", CASES / "counting_model.py")
    assert spec and spec.loader
    module = _MODULES.get("model")
    if module is None:
        module = _MODULES["model"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    seed, dimensions = {"old": (1, 48), "new": (2, 64), "other": (3, 48)}[model]
    return module._vector(text, seed, dimensions)


_MODULES: dict[str, Any] = {}
