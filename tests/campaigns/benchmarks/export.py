"""Export from a Chroma folder, against the script that anyone would write.

    python -m tests.campaigns.benchmarks.export [--records 20000] [--dimensions 384] [--keep]

The script pages through `get` and writes Parquet; it checks and keeps nothing. reembed hashes every
row, journals every shard and can go on after a kill.
"""

from __future__ import annotations

import json

from tests.campaigns.benchmarks.measuring import Benchmark, Claim, Work
from tests.campaigns.benchmarks.scene import build, migration, pages


def script(work: Work) -> None:
    """Paged `get` with vectors into one Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer = None
    for page in pages(work.folder, ["documents", "metadatas", "embeddings"]):
        table = pa.table(
            {
                "id": page["ids"],
                "document": page["documents"],
                "metadata": [json.dumps(metadata) for metadata in page["metadatas"]],
                "embedding": list(page["embeddings"]),
            }
        )
        writer = writer or pq.ParquetWriter(work.folder / "script.parquet", table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()


def export(work: Work) -> None:
    migration(work).run(until="export")


BENCHMARK = Benchmark(
    steps={"paged script": script, "export": export},
    claims=[
        Claim("export", "export from a Chroma folder / paged script", ["export"],
              ["paged script"], bar=0.35),
        Claim("export, peak memory", "MB of export from a Chroma folder", ["export"],
              figure="peak_mb", bar=500),
    ],
    prepare=build,
)  # fmt: skip

if __name__ == "__main__":
    BENCHMARK.main(__spec__.name, __doc__)
