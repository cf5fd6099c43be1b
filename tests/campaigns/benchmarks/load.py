"""Loading into a Chroma folder, through Chroma and past it, against a bare loop of `add`.

    python -m tests.campaigns.benchmarks.load [--records 20000] [--dimensions 384] [--keep]

The loop adds ready vectors in batches of 1,000 and checks nothing. reembed reads its shards, makes
sure of floats that Chroma would round, journals, and can go on after a kill.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

from tests.campaigns.benchmarks.measuring import Benchmark, Claim, Work
from tests.campaigns.benchmarks.scene import PAGE, build, client, migration


def before(work: Work) -> None:
    """Export and embed. Each way then loads into a folder of its own of the same size: every
    collection in it makes the next one slower."""
    for copy in (_copy(work, "bare"), _copy(work, "bulk")):
        shutil.copytree(work.folder / "chroma", copy / "chroma")
    migration(work).run(until="embed")
    migration(_filled(work), "always").run(until="embed")


def _copy(work: Work, way: str) -> Path:
    return work.folder / f"{way}{work.round}"


def _filled(work: Work) -> Work:
    return dataclasses.replace(work, folder=_copy(work, "bulk"))


def loop(work: Work) -> None:
    import pyarrow.parquet as pq

    from reembed.records import fixed_array_to_vectors

    name = f"bench{work.round}"
    (run,) = (path.parent for path in work.folder.glob(f"state{work.round}/{name}/*/export"))
    collection = client(_copy(work, "bare")).create_collection("bare", embedding_function=None)
    for path in sorted((run / "export").glob("*.parquet")):
        records = pq.read_table(path)
        vectors = fixed_array_to_vectors(
            pq.read_table(run / "embed" / path.name).column("embedding")
        )
        for start in range(0, records.num_rows, PAGE):
            batch = records.slice(start, PAGE).to_pydict()
            collection.add(
                ids=batch["id"],
                documents=batch["document"],
                metadatas=[json.loads(text) for text in batch["metadata"]],
                embeddings=vectors[start : start + PAGE],
            )


def load(work: Work) -> None:
    migration(work).run(until="load")


def fill(work: Work) -> None:
    migration(_filled(work), "always").run(until="load")


BENCHMARK = Benchmark(
    steps={"export and embed": before, "bare add loop": loop, "load": load, "fill": fill},
    claims=[
        Claim("load", "load into a Chroma folder / bare add loop", ["load"], ["bare add loop"],
              bar=1.0),
        Claim("load, processor", "load into a Chroma folder / bare add loop, CPU", ["load"],
              ["bare add loop"], figure="cpu_seconds"),
        Claim("load, peak memory beyond Chroma's", "MB of load beyond those of the add loop",
              ["load"], figure="peak_mb", less=["bare add loop"], bar=500),
        Claim("load, filled", "load into a Chroma folder with `bulk` / bare add loop", ["fill"],
              ["bare add loop"], bar=0.4),
        Claim("load, filled, processor",
              "load into a Chroma folder with `bulk` / bare add loop, CPU", ["fill"],
              ["bare add loop"], figure="cpu_seconds"),
        Claim("load, filled, peak memory beyond Chroma's",
              "MB of load with `bulk` beyond those of the add loop",
              ["fill"], figure="peak_mb", less=["bare add loop"], bar=500),
    ],
    prepare=build,
)  # fmt: skip

if __name__ == "__main__":
    BENCHMARK.main(__spec__.name, __doc__)
