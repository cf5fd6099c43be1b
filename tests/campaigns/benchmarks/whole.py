"""A whole migration on a Chroma folder, against its own stages.

    python -m tests.campaigns.benchmarks.whole [--records 20000] [--dimensions 384] [--keep]

Each stage is a process of its own, and then a second migration does all of them in one.
"""

from __future__ import annotations

from tests.campaigns.benchmarks.measuring import Benchmark, Claim, Figures, Work
from tests.campaigns.benchmarks.scene import build, migration

STAGES = ("export", "embed", "load", "verify")


def _until(work: Work, stage: str) -> None:
    migration(work).run(until=stage)


def swap(work: Work) -> None:
    migration(work).swap()


def back(work: Work) -> None:
    migration(work).rollback()


def whole(work: Work) -> Figures:
    migration(work, name=f"whole{work.round}").run()
    return {}


BENCHMARK = Benchmark(
    steps={
        "export": lambda work: _until(work, "export"),
        "embed": lambda work: _until(work, "embed"),
        "load": lambda work: _until(work, "load"),
        "verify": lambda work: _until(work, "verify"),
        "swap": swap,
        "rollback": back,
        "whole": whole,
    },
    claims=[
        Claim("whole run", "whole run / its slowest stage, load", ["whole"], ["load"], bar=1.2),
        Claim("verify and swap", "verify and swap / export to loaded", ["verify", "swap"],
              ["export", "embed", "load"], bar=0.3),
        Claim("whole run, peak memory", "MB of a whole run, with Chroma's own", ["whole"],
              figure="peak_mb"),
    ],
    prepare=build,
)  # fmt: skip

if __name__ == "__main__":
    BENCHMARK.main(__spec__.name, __doc__)
