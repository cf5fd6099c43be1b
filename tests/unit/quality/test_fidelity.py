from __future__ import annotations

from dataclasses import replace

import numpy as np

from reembed.quality.fidelity import Anew, fidelity_gate
from reembed.quality.sample import Sample
from reembed.quality.tail import TailProbe
from reembed.quality.verdict import Gate
from reembed.records import Metric, Vectors, export_batch, vectors_to_list_array

IDS = [f"r{i}" for i in range(50)]
TEXTS = [f"text {i}" for i in range(50)]
SAMPLE = Sample(IDS, 5_000, 40, 10, 125, 300, 90)
TAIL = TailProbe(300, 0.2, 0.0, True)
AGAIN = np.random.default_rng(1).normal(size=(50, 32)).astype(np.float32)
AGAIN /= np.linalg.norm(AGAIN, axis=1)[:, None]


def gate(
    served: Vectors,
    again: Vectors = AGAIN,
    rejected: list[int] | None = None,
    ids: list[str] = IDS,
    metric: Metric = "cosine",
    tail: TailProbe = TAIL,
) -> Gate:
    batch = export_batch(ids, TEXTS[: len(ids)], ["null"] * len(ids), [None] * len(ids),
                         vectors_to_list_array(served))  # fmt: skip
    return fidelity_gate(SAMPLE, TEXTS, Anew(again, rejected or []), batch, metric, tail)


def test_equal_vectors_pass_and_say_what_would_have_been_seen():
    found = gate(AGAIN)
    assert found.status == "pass"
    assert "125 consecutive ones" in found.message
    assert found.figures["seen_from_share"] > found.figures["below"] == 0


def test_noise_of_a_server_is_no_fault():
    noise = np.random.default_rng(2).normal(size=AGAIN.shape).astype(np.float32) * 1.6e-4
    assert gate(AGAIN + noise).status == "pass"


def test_the_vector_of_another_record_is_told():
    served = AGAIN.copy()
    served[[3, 4]] = served[[4, 3]]
    served[9] = np.random.default_rng(3).normal(size=32)
    found = gate(served)
    assert found.status == "fail"
    assert found.samples["other vector"] == ["r3", "r4", "r9"]
    assert found.samples["vector of another record"] == ["r3", "r4"]
    assert "3 of 50" in found.message and "2 hold the vector of another record" in found.message


def test_a_vector_that_was_not_scaled_again_is_told():
    served = AGAIN.copy()
    served[7] *= 0.8
    assert gate(served).samples == {"other length": ["r7"]}
    # A store that keeps cosine vectors at length one has the direction of a model that does not.
    assert gate(AGAIN, again=AGAIN * 3).status == "pass"
    assert gate(AGAIN, again=AGAIN * 3, metric="ip").status == "fail"


def test_missing_refused_and_bad_vectors_fail():
    assert gate(AGAIN[:49], ids=IDS[:49]).samples == {"not served": ["r49"]}
    again = AGAIN.copy()
    again[5] = 0
    assert gate(AGAIN, again, rejected=[5]).samples == {"refused": ["r5"]}
    served = AGAIN.copy()
    served[2] = np.nan
    assert gate(served).samples == {"other vector": ["r2"]}
    assert gate(AGAIN[:, :16]).figures["not_served"] == 50


def test_a_model_that_tells_nothing_apart_fails():
    constant = np.repeat(AGAIN[:1], 50, axis=0)
    found = gate(constant, constant)
    assert found.status == "fail"
    assert "less than half as many vectors" in found.message


def test_a_tail_that_is_not_seen_fails_and_a_refused_probe_is_told():
    found = gate(AGAIN, tail=replace(TAIL, seen=False))
    assert found.status == "fail"
    assert "the end of a text of 300 tokens" in found.message
    assert "refused the tail probe" in gate(AGAIN, tail=replace(TAIL, seen=None)).message


def test_no_record_is_no_proof():
    batch = export_batch([], [], [], [])
    none = Sample([], 0, 0, 0, 1, 0, 0)
    found = fidelity_gate(none, [], Anew(np.zeros((0, 32), np.float32)), batch, "cosine", TAIL)
    assert found.status == "fail"
