"""What export from and load into Postgres cost over bare COPY BINARY, as ratios from one run.

    python -m tests.campaigns.benchmarks.postgres [--records 20000 100000] [--rounds 5]

The peer out is `COPY table TO STDOUT (FORMAT BINARY)` by psycopg, every row kept in memory as it
came. The peer in is `COPY table FROM STDIN (FORMAT BINARY)` by psycopg's `write_row` with
pgvector's adapter, of rows that lie ready in memory, into the same kind of table. Against them
stand the store's own calls (`list_ids` and `fetch`; `add`) and the whole stages, which write or
read Parquet shards, hash every row and journal. Each measurement is a process of its own, rounds
are interleaved, and a ratio is the median of the rounds' ratios, above 1 where reembed is faster.
The CPU is that of the process and the server, over the peer's: the machine needs as much more.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from tests.campaigns.benchmarks.postgres_steps import INDEXED, QUERIES, STEPS, Bench, look
from tests.campaigns.benchmarks.postgres_tables import DIMENSIONS, FORMS, fill
from tests.support.servers.postgres_server import PostgresServer, postgres_server

PID = "REEMBED_BENCH_PID"
MEMORY = {"ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "2"}
"""As the program begins: see `reembed.__main__.bound_memory`."""
OUT, IN = ("COPY out", "fetch", "export"), ("COPY in", "add", "load")


def one_step(name: str, bench: Bench) -> None:
    """Do a step and print what it took."""
    pa.array(np.zeros(1)).to_pylist()  # imports pandas, if it is there
    work, server = STEPS[name](bench), PostgresServer(Path(), int(os.environ[PID]))
    next(work)
    start, cpu = time.perf_counter(), time.process_time() + server.cpu()
    next(work)
    found = {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() + server.cpu() - cpu,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    next(work, None)
    print(json.dumps(found))


def measure(name: str, bench: Bench) -> dict[str, float]:
    """Seconds and peak memory (MB) of a step in a process of its own, imports left out."""
    command = [
        sys.executable, "-m", __spec__.name, "--step", name, "--url", bench.url,
        "--form", bench.form.name, "--records", str(bench.count), "--folder", str(bench.folder),
    ]  # fmt: skip
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | MEMORY
    )
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def measured(bench: Bench, rounds: int) -> Iterator[str]:
    """Lines of the table: every step in every round, a ratio from each round."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in STEPS}
    for _ in range(rounds):
        for name in STEPS:
            found[name].append(measure(name, bench))
    for bare, *ours in (OUT, IN):
        for name in ours:
            pairs = list(zip(found[bare], found[name], strict=True))
            ratios = sorted(peer["seconds"] / own["seconds"] for peer, own in pairs)
            cpu = statistics.median(own["cpu_seconds"] / peer["cpu_seconds"] for peer, own in pairs)
            yield (
                f"| {bench.form.name} | {bench.count:,} | {name} | {_rate(bench, found[bare])} | "
                f"{_rate(bench, found[name])} | {statistics.median(ratios):.2f} | "
                f"{ratios[0]:.2f} to {ratios[-1]:.2f} | {cpu:.2f} | "
                f"{max(one['peak_mb'] for one in found[name]):.0f} |"
            )


def _rate(bench: Bench, figures: list[dict[str, float]]) -> str:
    return f"{bench.count / statistics.median(one['seconds'] for one in figures):,.0f}"


def main() -> None:
    """Measure every step and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--records", type=int, nargs="+", default=[20_000, 100_000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--form", choices=FORMS, action="append")
    parser.add_argument("--step", choices=STEPS)
    parser.add_argument("--url")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.step:
        (form,) = options.form
        bench = Bench(options.url, FORMS[form], options.records[0], options.folder)
        one_step(options.step, bench)
        return
    with (
        tempfile.TemporaryDirectory() as name,
        postgres_server(fsync="on", full_page_writes="on") as server,
        server.database() as url,
    ):
        os.environ[PID] = str(server.pid)
        print(f"{DIMENSIONS} dimensions; medians of {options.rounds} rounds\n")
        print("| table | records | reembed's | COPY, rows/s | reembed, rows/s | ratio | of rounds |"
              " CPU of it | peak MB |\n|---|---|---|---|---|---|---|---|---|")  # fmt: skip
        looked: dict[str, float] = {}
        for count in options.records:
            for form in options.form or FORMS:
                bench = Bench(url, FORMS[form], count, Path(name))
                fill(url, bench.form, bench.table, count)
                for line in measured(bench, options.rounds):
                    print(line, flush=True)
                if bench.form.name == "mem0" and count == options.records[-1]:
                    looked = look(bench)
        if looked:
            print(f"\nComparing all {count:,} records: {looked['compare, s']:.1f} s.")
            print(f"HNSW index of {INDEXED:,} rows: {looked['index, s']:.1f} s.")
            print(
                f"{QUERIES} queries in one call: {looked['query, ms']:.2f} ms each, "
                f"{looked['bare query, ms']:.2f} ms by psycopg."
            )


if __name__ == "__main__":
    main()
