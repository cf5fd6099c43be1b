"""Time and memory of a whole migration as the collection grows.

    python -m tests.campaigns.benchmarks.scale [--records 100000 400000 1000000]
        [--stores chroma chroma-add postgres] [--dimensions 384] [--keep]

A model that costs next to nothing, a Chroma folder, whose new collection is filled or added to, and
a table in Postgres with an index; each size is measured once, in one process that does all. What a
process holds that asks both collections by Chroma's own calls is taken off the memory. Seconds of
Postgres are those of its server, too. The source in a folder is filled as well, to save time.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from tests.campaigns.benchmarks import scene, whole_postgres
from tests.campaigns.benchmarks.measuring import (
    Claim,
    Figures,
    Step,
    Work,
    do_step,
    keep,
    measured,
    told,
)
from tests.support.servers.postgres_server import postgres_server


def held(work: Work) -> None:
    """Ask both collections, which brings their indexes into memory."""
    client = scene.client(work.folder)
    for one in client.list_collections():
        collection = client.get_collection(one.name, embedding_function=None)
        if collection.count() >= work.records:
            collection.query(query_embeddings=[[1.0] * work.dimensions], n_results=10)


STEPS: dict[str, dict[str, Step]] = {
    "chroma": {
        "build": scene.build_filled, "whole": scene.whole_step(bulk="always"), "held": held,
    },
    "chroma-add": {"build": scene.build_filled, "whole": scene.whole_step(), "held": held},
    "postgres": {
        "build": whole_postgres.build, "whole": scene.whole_step(whole_postgres.moved),
    },
}  # fmt: skip
IMPORTS = {
    "chroma": ("chromadb", "chromadb.api.rust", "reembed.migration"),
    "chroma-add": ("chromadb", "chromadb.api.rust", "reembed.migration"),
    "postgres": ("psycopg", "pgvector.psycopg", "reembed.migration"),
}


def measure(store: str, work: Work) -> Figures:
    """What one whole migration takes, what the store itself holds taken off its memory."""

    def all_steps() -> Figures:
        found = {
            step: measured(__spec__.name, f"{store}.{step}", work, {}) for step in STEPS[store]
        }
        found["whole"]["own_mb"] = found["whole"]["peak_mb"] - (
            found["held"]["peak_mb"] if "held" in found else 0.0
        )
        return found["whole"]

    if store != "postgres":
        return all_steps()
    with postgres_server(fsync="on") as server, server.database() as url:
        os.environ[whole_postgres.URL] = url
        return all_steps()


def main() -> None:
    """Measure every size, print, and keep the figures and their ratios to the smallest."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=int, nargs="+", default=[100_000, 400_000, 1_000_000])
    parser.add_argument("--stores", nargs="+", choices=STEPS, default=["chroma", "postgres"])
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--step")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--round", type=int, default=0)
    options = parser.parse_args()
    if options.step:
        store, _, step = options.step.partition(".")
        work = Work(options.folder, 0, int(options.records[0]), options.dimensions)
        do_step(STEPS[store][step], work, IMPORTS[store])
        return
    for store in options.stores:
        sizes: dict[int, Figures] = {}
        for records in sorted(options.records):
            with tempfile.TemporaryDirectory() as name:
                sizes[records] = found = measure(
                    store, Work(Path(name), 0, records, options.dimensions)
                )
            print(f"{store}, {records:,}: {found['seconds']:.0f} s, {found['peak_mb']:.0f} MB, "
                  f"{found['own_mb']:.0f} MB beyond the store's own", flush=True)  # fmt: skip
            if options.keep:
                _keep(store, sizes, records, options.dimensions)


def _keep(store: str, sizes: dict[int, Figures], records: int, dimensions: int) -> None:
    smallest = min(sizes)
    claims = [
        Claim(f"grown, {store}, seconds", f"{store}: seconds of a whole run", ["it"]),
        Claim(f"grown, {store}, MB", f"{store}: MB of a whole run beyond the store's own", ["it"],
              figure="own_mb", bar=500),
    ]  # fmt: skip
    if records > smallest:
        times = records / smallest
        claims += [
            Claim(f"scale, {store}", f"{store}: time of {records:,} records / {smallest:,}",
                  ["it"], ["first"], bar=round(1.05 * times, 2)),
            Claim(f"scale, {store}, processor",
                  f"{store}: CPU of reembed's process for {records:,} records / {smallest:,}",
                  ["it"], ["first"], figure="cpu_seconds"),
            Claim(f"scale, {store}, memory",
                  f"{store}: memory of {records:,} records / {smallest:,}, the store's own left "
                  "out", ["it"], ["first"], figure="own_mb", bar=1.1),
        ]  # fmt: skip
    both = {"it": sizes[records], "first": sizes[smallest]}
    size = f"{records:,} x {dimensions}"
    keep(
        {f"{one.key}, {size}": told(one, [one.value(both, records)]) for one in claims},
        __spec__.name,
    )


if __name__ == "__main__":
    main()
