"""Ratios of whole processes that were measured in one run.

A benchmark is a table of steps, each of which is done in a process of its own, and of claims about
them: a step's figure over a peer's. Rounds are interleaved, so that a noisy machine is noisy for
both, and a claim is the median of the rounds' ratios with their range. What was found is printed
and kept in `docs/benchmarks.json`, from which the tables in the documentation are made; nothing
here passes or fails.

    python -m tests.campaigns.benchmarks.export --records 20000 --rounds 3
"""

from __future__ import annotations

import argparse
import compileall
import datetime
import functools
import importlib
import importlib.util
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

KEPT = Path(__file__).resolve().parents[3] / "docs" / "benchmarks.json"

Figures = dict[str, float]
"""What one process took: `seconds`, `cpu_seconds` and `peak_mb`, imports left out of the first two;
`whole_seconds` and `whole_cpu_seconds` from its start to its end, with what it started. Only what
reembed does imports reembed."""


@dataclass(frozen=True)
class Work:
    """What a step is given.

    Attributes:
        folder: kept from step to step.
        round: counted from 0.
        records, dimensions: of the collection.
    """

    folder: Path
    round: int
    records: int
    dimensions: int


Step = Callable[[Work], "Figures | None"]
"""Does its work; may return figures of its own, which stand beside those of its process."""


@dataclass(frozen=True)
class Claim:
    """One figure of a step over that of its peers.

    Attributes:
        key: in `docs/benchmarks.json`, with the size behind it.
        says: what is compared, `ours / theirs`.
        ours, theirs: steps; several add up. Without peers it is the figure itself.
        bar: what the ratio is to be at most (at least for `more`).
        figure: of the steps.
        more: it is the better the higher it is, `theirs / ours`.
        each: without peers: the figure of one record, times this.
        less: steps whose figure is taken off.
    """

    key: str
    says: str
    ours: Sequence[str]
    theirs: Sequence[str] = ()
    bar: float | None = None
    figure: str = "seconds"
    more: bool = False
    each: float = 0.0
    less: Sequence[str] = ()

    def value(self, found: Mapping[str, Figures], records: int) -> float:
        """The ratio of one round."""
        own = sum(found[name][self.figure] for name in self.ours)
        own -= sum(found[name][self.figure] for name in self.less)
        if self.theirs:
            peers = sum(found[name][self.figure] for name in self.theirs)
            return peers / own if self.more else own / peers
        return own * self.each / records if self.each else own


WITHOUT_CHROMADB = ("reembed.migration", "reembed.stores.chroma.store", "chromadb_rust_bindings")
"""What reembed imports where Chroma's package is not needed."""


@dataclass(frozen=True)
class Benchmark:
    """Steps in the order in which they are done, and what is claimed of them.

    Attributes:
        prepare: makes what all rounds read.
        around: held open while the steps run, such as a server; gives them variables.
        records, dimensions: of the collection, where the command line gives none.
        sized: whether records and dimensions mean anything to it.
        imports: of a peer's steps, Chroma's own parts that opening a folder imports among them.
        own_imports: of the steps that a claim calls ours.
    """

    steps: Mapping[str, Step]
    claims: Sequence[Claim]
    prepare: Callable[[Work], None] = lambda work: None
    around: Callable[[Path], Iterator[Mapping[str, str]]] | None = None
    records: int = 20_000
    dimensions: int = 384
    sized: bool = True
    imports: Sequence[str] = ("chromadb", "chromadb.api.rust")
    own_imports: Sequence[str] = ("reembed.migration", "chromadb", "chromadb.api.rust")

    def main(self, module: str, words: str | None) -> None:
        """Measure, print and keep; or do the one step that `--step` names."""
        parser = argparse.ArgumentParser(description=(words or "").splitlines()[0])
        parser.add_argument("--records", type=int, default=self.records)
        parser.add_argument("--dimensions", type=int, default=self.dimensions)
        parser.add_argument("--rounds", type=int, default=3)
        parser.add_argument("--keep", action="store_true", help="write docs/benchmarks.json")
        parser.add_argument("--step", choices=self.steps)
        parser.add_argument("--folder", type=Path)
        parser.add_argument("--round", type=int, default=0)
        options = parser.parse_args()
        work = Work(options.folder, options.round, options.records, options.dimensions)
        if options.step:
            ours = options.step in {step for claim in self.claims for step in claim.ours}
            do_step(self.steps[options.step], work, self.own_imports if ours else self.imports)
            return
        with tempfile.TemporaryDirectory() as name, self._around(Path(name)) as variables:
            self.prepare(Work(Path(name), 0, options.records, options.dimensions))
            rounds = [
                {
                    step: measured(module, step, Work(
                        Path(name), number, options.records, options.dimensions), variables)
                    for step in self.steps
                }
                for number in range(options.rounds)
            ]  # fmt: skip
        found = {
            claim.key + f", {options.records:,} x {options.dimensions}" * self.sized: told(
                claim, [claim.value(one, options.records) for one in rounds]
            )
            for claim in self.claims
        }
        for key, figure in found.items():
            bar = f", aim {figure['bar']}" if figure["bar"] is not None else ""
            print(f"{figure['median']:8.2f}  ({figure['low']:.2f} to {figure['high']:.2f}{bar})  "
                  f"{key}: {figure['says']}")  # fmt: skip
        for step in self.steps:
            seconds = statistics.median(one[step]["seconds"] for one in rounds)
            cpu = statistics.median(one[step]["cpu_seconds"] for one in rounds)
            peak = max(one[step]["peak_mb"] for one in rounds)
            print(f"    {step}: {seconds:.2f} s, {cpu:.2f} s of CPU, {peak:.0f} MB")
        if options.keep:
            keep(found, module)

    @contextmanager
    def _around(self, folder: Path) -> Iterator[Mapping[str, str]]:
        if self.around is None:
            yield {}
        else:
            yield from self.around(folder)


@functools.cache
def compile_sources() -> None:
    """Put the bytecode beside the sources, as an installation does: where the environment forbids
    Python to write it, every process would compile what it imports."""
    for package in ("reembed", "tests.campaigns.benchmarks"):
        spec = importlib.util.find_spec(package)
        assert spec is not None and spec.submodule_search_locations
        for folder in spec.submodule_search_locations:
            compileall.compile_dir(folder, quiet=1)


def do_step(step: Step, work: Work, imports: Sequence[str]) -> None:
    """Do a step in this process, and print what it took as JSON.

    Args:
        imports: modules to import before the clock starts.
    """
    program = any(module.startswith("reembed") for module in imports)
    if program:  # as it begins
        importlib.import_module("reembed.__main__").begin_process()
    for module in imports:
        importlib.import_module(module)
    if program:
        importlib.import_module("reembed.__main__").end_imports()
    start, cpu = time.perf_counter(), time.process_time()
    own = step(work)
    found = {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(found | (own or {})))


def measured(module: str, step: str, work: Work, variables: Mapping[str, str]) -> Figures:
    """What a step of a benchmark's module takes in a process of its own."""
    command = [
        sys.executable, "-m", module, "--step", step, "--folder", str(work.folder),
        "--round", str(work.round), "--records", str(work.records),
        "--dimensions", str(work.dimensions),
    ]  # fmt: skip
    compile_sources()
    start, cpu = time.perf_counter(), _cpu_of_children()
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | variables
    )
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures | {
        "whole_seconds": time.perf_counter() - start,
        "whole_cpu_seconds": _cpu_of_children() - cpu,
    }


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


Kept = dict[str, float | str | None]


def told(claim: Claim, values: Sequence[float]) -> Kept:
    """A claim with the median of its rounds and their range."""
    return {
        "says": claim.says,
        "median": round(statistics.median(values), 3),
        "low": round(min(values), 3),
        "high": round(max(values), 3),
        "rounds": len(values),
        "bar": claim.bar,
        "at": "least" if claim.more else "most",
    }


def keep(found: Mapping[str, Kept], module: str) -> None:
    """Write claims into `docs/benchmarks.json`, each with its command, machine and day."""
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    where = {
        "command": f"python -m {module}",
        "day": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    kept |= {key: {**figure, **where} for key, figure in found.items()}
    KEPT.write_text(json.dumps(dict(sorted(kept.items())), indent=1) + "\n")
