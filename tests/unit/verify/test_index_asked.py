"""How many queries an index is asked: as many as it takes to be certain, from the whole run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from reembed.manifest import Verify
from reembed.quality.answers import DEEPER, Judge
from reembed.quality.search import Block, exact_search
from reembed.records import Vectors
from reembed.verify.search_gates import PART, SearchGates

K, COUNT = 10, 1_000
RECORDS = np.random.default_rng(1).normal(size=(400, 16)).astype(np.float32)
IDS = [f"r{number}" for number in range(len(RECORDS))]
QUERIES = np.random.default_rng(2).normal(size=(COUNT, 16)).astype(np.float32)
EXACT = exact_search(QUERIES, [Block(IDS, [b""] * len(IDS), RECORDS)], DEEPER * K, "cosine")
PLACE = {vector.tobytes(): row for row, vector in enumerate(QUERIES)}


@dataclass
class Known:
    """Stands for a `Truth`."""

    settings: Verify = field(default_factory=Verify)
    seed: int = 7

    def judge(self) -> Judge:
        return Judge(QUERIES, EXACT, "cosine", lambda ids: {})


@dataclass
class Shadow:
    """Finds what is nearest, and misses one answer of some of the queries."""

    misses: float
    asked: list[list[int]] = field(default_factory=list)

    def query(self, vectors: Vectors, k: int) -> list[list[str]]:
        rows = [PLACE[vector.tobytes()] for vector in vectors]
        self.asked.append(rows)
        every = round(1 / self.misses) if self.misses else COUNT + 1
        return [
            EXACT.ids[row, :k].tolist()[: k - ((row + 1) % every == 0) * round(10 * (every > 1))]
            if every > 1 else EXACT.ids[row, : k // 2].tolist()
            for row in rows
        ]  # fmt: skip


@pytest.mark.parametrize(("misses", "parts"), [(0.0, 1), (1.0, 1), (0.05, COUNT // PART)])
def test_an_index_is_asked_until_it_is_certain(misses: float, parts: int) -> None:
    """All right, half of it, and right at the limit of 0.95."""
    shadow: Any = Shadow(misses)
    known: Any = Known()
    rows, answers, recalls = SearchGates(known, shadow, None)._asked(K)
    assert len(shadow.asked) == parts and len(rows) == len(answers) == len(recalls) == parts * PART
    assert len({*rows.tolist()}) == len(rows)
    assert min(shadow.asked[0]) < 50 and max(shadow.asked[0]) > COUNT - 50, "from the whole run"
    expected = {0.0: 1.0, 1.0: 0.5, 0.05: 0.95}[misses]
    assert recalls.mean() == pytest.approx(expected, abs=0.001)
    assert recalls.tolist() == [len({*answer}) / K for answer in answers]
