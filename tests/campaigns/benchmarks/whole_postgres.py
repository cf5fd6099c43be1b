"""A whole migration of a table in Postgres, against its own stages.

    python -m tests.campaigns.benchmarks.whole_postgres [--records 20000] [--dimensions 1536]

A table of id, text, JSON and vector with an HNSW index, on a server that syncs to disk as one in
service does. Each stage is a process of its own. Claims of CPU count the server's, too; the CPU
that is printed for a step is that of its process alone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.campaigns.benchmarks.measuring import Benchmark, Claim, Figures, Step, Work
from tests.campaigns.benchmarks.scene import PAGE, migration, stage_steps, texts, whole_step
from tests.support.servers.postgres_server import PostgresServer, postgres_server

URL, PID = "REEMBED_BENCH_URL", "REEMBED_BENCH_PID"
CPU = "cpu_seconds_of_both"
"""Of a step's process and the server, while it worked."""


def around(_: Path) -> Iterator[Mapping[str, str]]:
    with postgres_server(fsync="on", full_page_writes="on") as server, server.database() as url:
        os.environ[URL] = url
        yield {URL: url, PID: str(server.pid)}


def build(work: Work) -> None:
    """The table `docs`, as `scene.build` has it, and its index."""
    import psycopg
    from pgvector.psycopg import register_vector
    from psycopg.types.json import Jsonb

    generator, written = np.random.default_rng(0), texts(work.records)
    with psycopg.connect(os.environ[URL], autocommit=True) as connection:
        register_vector(connection)
        connection.execute(
            "CREATE TABLE docs (id bigint PRIMARY KEY, content text, metadata jsonb, "
            f"embedding vector({work.dimensions}))".encode()
        )
        query = "COPY docs FROM STDIN (FORMAT BINARY)"
        with connection.cursor() as cursor, cursor.copy(query) as copy:
            copy.set_types(["bigint", "text", "jsonb", "vector"])
            for start in range(0, work.records, PAGE):
                rows = range(start, min(start + PAGE, work.records))
                vectors = generator.normal(size=(len(rows), work.dimensions)).astype(np.float32)
                for row, vector in zip(rows, vectors, strict=True):
                    copy.write_row((row, next(written), Jsonb({"n": row}), vector))
        connection.execute("CREATE INDEX ON docs USING hnsw (embedding vector_cosine_ops)")
        connection.execute("VACUUM ANALYZE docs")
        connection.execute("CHECKPOINT")


def moved(work: Work, **changes: Any) -> Any:
    """A migration of the table, one a round."""
    return migration(work, source={"url": os.environ[URL], "collection": "docs"}, **changes)


def back(work: Work) -> None:
    moved(work).rollback()
    moved(work).clean()


def counted(step: Step) -> Step:
    """The step, with the server's CPU."""

    def counting(work: Work) -> Figures:
        server = PostgresServer(Path(), int(os.environ[PID]))
        before = server.cpu() + time.process_time()
        step(work)
        return {CPU: server.cpu() + time.process_time() - before}

    return counting


STEPS = stage_steps(moved) | {"back": back, "whole": whole_step(moved)}
VERIFIED, BEFORE = ("verify", "swap"), ("export", "embed", "load")
BENCHMARK = Benchmark(
    steps={name: counted(step) for name, step in STEPS.items()},
    claims=[
        Claim("Postgres, verify and swap", "Postgres: verify and swap / export to loaded, indexed",
              VERIFIED, BEFORE, bar=0.3),
        Claim("Postgres, verify and swap, CPU",
              "Postgres: verify and swap / export to loaded, indexed, CPU with the server's",
              VERIFIED, BEFORE, bar=0.3, figure=CPU),
        Claim("Postgres, whole run", "Postgres: whole run / its slowest stage, load", ["whole"],
              ["load"], bar=1.2),
        Claim("Postgres, whole run, CPU",
              "Postgres: whole run / its slowest stage, load, CPU with the server's", ["whole"],
              ["load"], figure=CPU),
        Claim("Postgres, whole run, peak memory", "MB of a whole run on Postgres", ["whole"],
              figure="peak_mb", bar=500),
    ],
    prepare=build,
    around=around,
    dimensions=1536,
    imports=("psycopg", "pgvector.psycopg"),
    own_imports=("reembed.migration", "psycopg", "pgvector.psycopg"),
)  # fmt: skip

if __name__ == "__main__":
    BENCHMARK.main(__spec__.name, __doc__)
