"""How long `reembed --help` takes beyond starting Python.

python -m tests.campaigns.benchmarks.start [--rounds 9] [--keep]
"""

from __future__ import annotations

import subprocess
import sys

from tests.campaigns.benchmarks.measuring import Benchmark, Claim, Work


def python(work: Work) -> None:
    subprocess.run([sys.executable, "-c", "pass"], check=True)


def help(work: Work) -> None:
    command = [sys.executable, "-m", "reembed", "--help"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


BENCHMARK = Benchmark(
    steps={"python -c pass": python, "reembed --help": help},
    claims=[
        Claim("start", "seconds of `reembed --help` beyond `python -c pass`", ["reembed --help"],
              less=["python -c pass"], bar=0.3),
        Claim("start, processor", "the same, CPU", ["reembed --help"], less=["python -c pass"],
              figure="whole_cpu_seconds"),
    ],
    sized=False,
    imports=(),
    own_imports=(),
)  # fmt: skip

if __name__ == "__main__":
    BENCHMARK.main(__spec__.name, __doc__)
