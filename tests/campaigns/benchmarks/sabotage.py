"""How often each gate catches the fault that it is there for: 100 seeded trials a fault.

    make bench-sabotage

writes docs/sabotage.md. Each trial damages a copy of a finished run of 2,400 records (WordLlama,
128 to 256 dimensions) and asks the gate; the clean run goes through all gates with another seed
each time.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "sabotage.md"
CLEAN = "no fault"
TRIALS = 100


@dataclass(frozen=True)
class Row:
    """A fault's trials: how many were caught, or passed where there was no fault."""

    name: str
    gate: str
    trials: int
    right: int
    message: str


def trial(work: Path, name: str, seeds: Sequence[int]) -> Row:
    """Trials of one fault, in a process of its own folder."""
    from tests.campaigns.sabotage.faults import FAULTS
    from tests.campaigns.sabotage.run import Finished

    base: Finished = _base(work)
    fault = next((one for one in FAULTS if one.name == name), None)
    right, message = 0, ""
    for seed in seeds:
        with base.copy(work / f"copy-{os.getpid()}", seed) as run:
            if fault is None:
                gates = run.gates()
                right += all(gate.status in ("pass", "shown") for gate in gates)
                message = ", ".join(f"{gate.name} {gate.status}" for gate in gates)
                continue
            fault.damage(run, random.Random(seed))
            gate = run.gate(fault.gate)
            right += gate.status == "fail"
            message = gate.message
    return Row(name, fault.gate if fault else "all", len(seeds), right, message)


_bases: dict[int, object] = {}


def _base(work: Path):
    from tests.campaigns.sabotage.run import finish

    if os.getpid() not in _bases:
        _bases[os.getpid()] = finish(work / f"base-{os.getpid()}")
    return _bases[os.getpid()]


def table(rows: Sequence[Row], seconds: float) -> str:
    """The page."""
    lines = [
        "# Sabotage",
        "",
        f"Made by `make bench-sabotage` in {seconds / 60:.0f} minutes. Each fault is done to a",
        "finished run of 2,400 records in seeded trials, and the gate that should catch it is",
        "asked; the run without a fault goes through all gates. The message is the last trial's.",
        "",
        "| fault | gate | caught | message |",
        "|---|---|---|---|",
    ]
    for row in rows:
        caught = f"{row.right} of {row.trials}"
        caught = f"passed {caught}" if row.name == CLEAN else caught
        lines.append(f"| {row.name} | {row.gate} | {caught} | {row.message.replace('|', '/')} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run all trials, write the page, and fail if a fault slipped through more than once in 100."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--trials", type=int, default=TRIALS)
    options.add_argument("--processes", type=int, default=max(1, (os.cpu_count() or 2)))
    options.add_argument("-o", type=Path, default=PAGE)
    given = options.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # one process a core instead
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    from tests.campaigns.sabotage.faults import FAULTS

    start = time.monotonic()
    names = [CLEAN, *(fault.name for fault in FAULTS)]
    parts = [(name, range(first, min(first + 10, given.trials)))
             for name in names for first in range(0, given.trials, 10)]  # fmt: skip
    found: dict[str, Row] = {}
    context = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(given.processes, context) as pool,
    ):
        futures = [pool.submit(trial, Path(folder), *part) for part in parts]
        for future in futures:
            row = future.result()
            seen = found.get(row.name, replace(row, trials=0, right=0))
            found[row.name] = replace(row, trials=seen.trials + row.trials,
                                      right=seen.right + row.right)  # fmt: skip
            print(f"{row.name}: {found[row.name].right} of {found[row.name].trials}", flush=True)
    rows = [found[name] for name in names]
    given.o.parent.mkdir(exist_ok=True)
    given.o.write_text(table(rows, time.monotonic() - start), "utf-8")
    missed = [row.name for row in rows if row.right < 0.99 * row.trials]
    print(f"missed: {', '.join(missed)}" if missed else f"wrote {given.o}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
