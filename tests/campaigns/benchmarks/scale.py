"""Time and memory of a whole migration as the collection grows.

    python -m tests.campaigns.benchmarks.scale [--records 100000 400000 1000000] [--keep]

A static model and a Chroma folder; each size is measured once, in one process that does all. What
is claimed: time grows as the records do, and memory beyond what Chroma's own index takes does not.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tests.campaigns.benchmarks.measuring import Claim, Work, do_step, keep, measured, told
from tests.campaigns.benchmarks.scene import build, migration, model

STEPS = {
    "build": build,
    "whole": lambda work: migration(work, model=model(work.dimensions)).run(),
}


def main() -> None:
    """Measure every size, print, and keep the ratios to the smallest."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=int, nargs="+", default=[100_000, 400_000, 1_000_000])
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--step", choices=STEPS)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--round", type=int, default=0)
    options = parser.parse_args()
    if options.step:
        work = Work(options.folder, 0, options.records[0], options.dimensions)
        do_step(STEPS[options.step], work, ("chromadb", "reembed.migration"))
        return
    smallest = options.records[0]
    sizes = {}
    for records in options.records:
        with tempfile.TemporaryDirectory() as name:
            work = Work(Path(name), 0, records, options.dimensions)
            measured(__spec__.name, "build", work, {})
            sizes[records] = measured(__spec__.name, "whole", work, {})
        found = sizes[records]
        print(f"{records:,}: {found['seconds']:.0f} s, {found['peak_mb']:.0f} MB", flush=True)
        if records == smallest or not options.keep:
            continue
        times = records / smallest
        claims = [
            Claim("scale", f"time of {records:,} records / {smallest:,}", ["it"], ["first"],
                  bar=1.05 * times),
            Claim("scale, memory", f"peak memory of {records:,} records / {smallest:,}", ["it"],
                  ["first"], figure="peak_mb"),
        ]  # fmt: skip
        both = {"it": found, "first": sizes[smallest]}
        keep(
            {
                f"{claim.key}, {records:,} x {options.dimensions}": told(
                    claim, [claim.value(both, records)]
                )
                for claim in claims
            },
            __spec__.name,
        )


if __name__ == "__main__":
    main()
