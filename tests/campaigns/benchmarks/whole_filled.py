"""A whole migration on a Chroma folder whose new collection is filled past Chroma's `add`.

    python -m tests.campaigns.benchmarks.whole_filled [--records 20000] [--dimensions 384] [--keep]

The steps of `whole`, with `target.bulk: always`, against the migration that adds through Chroma
(`target.bulk: never`), each on a copy of the same folder.
"""

from __future__ import annotations

import functools
from dataclasses import replace

from tests.campaigns.benchmarks import whole
from tests.campaigns.benchmarks.measuring import Claim, Work
from tests.campaigns.benchmarks.scene import stage_steps, whole_step


def copies(work: Work) -> None:
    """A folder for the stages, one for the whole, and one for the whole that adds."""
    whole.copies(work, "added")


def filled(work: Work) -> None:
    whole_step(bulk="always")(whole.own(work, "whole"))


def added(work: Work) -> None:
    whole_step()(whole.own(work, "added"))


BENCHMARK = replace(
    whole.BENCHMARK,
    steps={
        "copies": copies,
        **stage_steps(functools.partial(whole.staged, bulk="always")),
        "whole": filled,
        "added": added,
        "bare": whole.bare,
    },
    claims=[
        Claim("filled whole run", "whole run that fills / one that adds", ["whole"], ["added"]),
        Claim("filled whole run, processor", "whole run that fills / one that adds, CPU",
              ["whole"], ["added"], figure="cpu_seconds"),
        Claim("filled whole run, verify and swap", "filled: verify and swap / export to loaded",
              ["verify", "swap"], ["export", "embed", "load"]),
        Claim("filled whole run, peak memory", "filled: MB of a whole run beyond Chroma's own",
              ["whole"], figure="peak_mb", less=["bare"], bar=500),
    ],
)  # fmt: skip

if __name__ == "__main__":
    BENCHMARK.main(__spec__.name, __doc__)
