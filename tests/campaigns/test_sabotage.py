"""Every fault is caught by the gate that should catch it, and the clean run passes.

A few seeded trials each; `make bench-sabotage` does 100 and writes docs/sabotage.md.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.campaigns.sabotage.faults import FAULTS, Fault
from tests.campaigns.sabotage.run import Finished, finish

TRIALS = int(os.environ.get("REEMBED_SABOTAGE_TRIALS", "1"))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return finish(tmp_path_factory.mktemp("sabotage") / "20260101t000000-0000")


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_caught_by_its_gate(fault: Fault, base: Finished, tmp_path: Path) -> None:
    for seed in range(TRIALS):
        with base.copy(tmp_path / "copy", seed) as run:
            fault.damage(run, random.Random(seed))
            gate = run.gate(fault.gate)
        assert gate.status == "fail", f"seed {seed}: {gate.message}"


def test_the_clean_run_passes_and_its_verdict_can_be_computed_again(base: Finished) -> None:
    first, second = base.gates(), base.gates()
    assert [gate for gate in first if gate.name != "latency"] == [
        gate for gate in second if gate.name != "latency"
    ]
    statuses = {gate.name: gate.status for gate in first}
    assert set(statuses.values()) <= {"pass", "shown"}
    assert [name for name, status in statuses.items() if status == "pass"][:3] == [
        "integrity", "fidelity", "index",
    ]  # fmt: skip


def test_there_are_faults_for_every_gate() -> None:
    assert len(FAULTS) >= 20
    assert {fault.gate for fault in FAULTS} == {"integrity", "fidelity", "index", "recall"}
