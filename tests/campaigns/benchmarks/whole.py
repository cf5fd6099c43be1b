"""A whole migration on a Chroma folder, against its own stages.

    python -m tests.campaigns.benchmarks.whole [--records 20000] [--dimensions 384] [--keep]

Each stage is a process of its own, and then a second migration does all of them in one, on a copy
of the same folder: every collection in a folder makes the next one slower. What Chroma itself holds
is taken off the memory: that of a process which adds the same vectors by Chroma's own calls, and
asks both collections.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import Any

from tests.campaigns.benchmarks.measuring import Benchmark, Claim, Work
from tests.campaigns.benchmarks.scene import (
    PAGE,
    build,
    client,
    migration,
    stage_steps,
    whole_step,
)


def copies(work: Work, *more: str) -> None:
    """A folder for the stages, one for the whole, and more of these names."""
    for name in ("stages", "whole", *more):
        shutil.copytree(work.folder / "chroma", own(work, name).folder / "chroma")


def own(work: Work, name: str) -> Work:
    return replace(work, folder=work.folder / f"{name}{work.round}")


def staged(work: Work, **changes: Any) -> Any:
    return migration(own(work, "stages"), **changes)


def whole(work: Work) -> None:
    whole_step()(own(work, "whole"))


def bare(work: Work) -> None:
    """What Chroma holds of two such collections, filled and asked by its own calls."""
    import numpy as np

    source = client(work.folder).get_collection("docs", embedding_function=None)
    made = client(work.folder).create_collection(f"bare{work.round}", embedding_function=None)
    generator = np.random.default_rng(1)
    for start in range(0, work.records, PAGE):
        page = source.get(limit=PAGE, offset=start, include=["documents", "metadatas"])
        size = len(page["ids"]), work.dimensions
        made.add(
            ids=page["ids"], documents=page["documents"], metadatas=page["metadatas"],
            embeddings=generator.normal(size=size).astype(np.float32),
        )  # fmt: skip
    for one in (source, made):
        one.query(query_embeddings=generator.normal(size=(1, work.dimensions)), n_results=10)
    client(work.folder).delete_collection(made.name)


BENCHMARK = Benchmark(
    steps={"copies": copies} | stage_steps(staged) | {"whole": whole, "bare": bare},
    claims=[
        Claim("whole run", "whole run / its slowest stage, load", ["whole"], ["load"], bar=1.2),
        Claim("whole run, processor", "whole run / its slowest stage, load, CPU", ["whole"],
              ["load"], figure="cpu_seconds"),
        Claim("verify and swap", "verify and swap / export to loaded", ["verify", "swap"],
              ["export", "embed", "load"], bar=0.3),
        Claim("verify and swap, processor", "verify and swap / export to loaded, CPU",
              ["verify", "swap"], ["export", "embed", "load"], figure="cpu_seconds"),
        Claim("whole run, peak memory", "MB of a whole run beyond Chroma's own", ["whole"],
              figure="peak_mb", less=["bare"], bar=500),
    ],
    prepare=build,
)  # fmt: skip

if __name__ == "__main__":
    BENCHMARK.main(__spec__.name, __doc__)
