from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from reembed.quality.index import (
    Baseline,
    Deeper,
    Index,
    Looks,
    advice,
    index_gate,
    other_metric,
)
from reembed.quality.verdict import Gate


def gate(recall: float, **options: Any) -> Gate:
    index = Index(options.pop("real", "cosine"), **options.pop("index", {}))
    return index_gate(np.full(100, recall), 10, 0.95, "cosine", index, Looks(**options))


def test_the_limit_decides():
    assert gate(0.95).status == "pass"
    assert gate(0.9499).status == "fail"


def test_another_metric_fails_however_good_the_recall():
    wrong = gate(1.0, real="l2")
    assert wrong.status == "fail"
    assert "ranks by l2" in wrong.message
    assert "ranks by ip" in gate(0.5, explained_by="ip").message
    assert other_metric({"cosine": 0.4, "l2": 0.99, "ip": 0.5}, "cosine") == "l2"
    assert other_metric({"cosine": 0.94, "l2": 0.95}, "cosine") is None


def test_the_advice_names_the_setting_its_cost_and_what_was_measured():
    tried = [Deeper(20, 0.8), Deeper(50, 0.97)]
    message = gate(
        0.6, deeper=tried, index={"scheme": "chroma", "settings": {"ef_search": 10}}
    ).message
    assert "ef_search of 50 (now 10) it finds 0.9700" in message
    assert "load it again" in message
    assert "no memory" in message
    thin = advice(10, 0.95, [Deeper(20, 0.8), Deeper(300, 0.85)])
    assert "even with an ef_search of 300" in thin
    assert "max_neighbors" in thin and "ef_construction" in thin
    assert "max_neighbors" in advice(10, 0.95, [])


def test_the_advice_for_postgres_is_what_postgres_takes():
    hnsw = {"type": "hnsw", "m": 16}
    assert "SET hnsw.ef_search = 80" in advice(10, 0.95, [Deeper(80, 0.97)], "postgresql", hnsw)
    thin = advice(10, 0.95, [Deeper(80, 0.8)], "postgresql", hnsw)
    assert "raise m (M;" in thin and "max_neighbors" not in thin
    assert "ivfflat.probes" in advice(10, 0.95, [], "postgresql", {"type": "ivfflat"})


@pytest.mark.parametrize(("old", "status"), [(0.91, "pass"), (0.93, "fail")])
def test_vectors_that_are_hard_to_search_are_no_fault_of_the_migration(
    old: float, status: str
) -> None:
    found = gate(0.9, baseline=Baseline(100, old=old, new=0.9))
    assert found.status == status
    assert f"the source's own index finds {old:.4f}" in found.message
    assert "raise max_neighbors" in found.message
    assert found.figures["baseline"] == {"queries": 100, "old": old, "new": 0.9}


def test_an_index_that_the_store_does_not_need_passes_and_says_so() -> None:
    left_out = gate(0.5, needless=True)
    assert left_out.status == "pass" and gate(0.5).status == "fail"
    assert "without the index now" in left_out.message
    assert left_out.figures["without_index"] is True


def test_a_baseline_excuses_no_wrong_metric() -> None:
    baseline = Baseline(100, old=0.2, new=0.9)
    found = gate(0.9, explained_by="l2", baseline=baseline)
    assert found.status == "fail"
