"""Export from a Chroma folder, against the script that anyone would write.

    python -m tests.campaigns.benchmarks.export [--records 20000] [--dimensions 384] [--keep]

The script pages through `get` and writes Parquet; it checks and keeps nothing. The bare limit does
no more than read Chroma's files and write Parquet. reembed hashes every row, compares a sample with
Chroma's answers, journals every shard and can go on after a kill.
"""

from __future__ import annotations

import json

from tests.campaigns.benchmarks.measuring import WITHOUT_CHROMADB, Benchmark, Claim, Work
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


def bare(work: Work) -> None:
    """The limit: one SELECT over chroma.sqlite3, the index's file read whole, one Parquet file of
    it; no page, no check, no hash, no vector put beside its record."""
    import sqlite3

    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    connection = sqlite3.connect(f"file:{work.folder}/chroma/chroma.sqlite3?mode=ro", uri=True)
    metadata, vectors = (
        connection.execute(
            "SELECT s.id FROM segments s JOIN collections c ON c.id = s.collection "
            "WHERE c.name = 'docs' AND s.scope = ?", (scope,),
        ).fetchone()[0]
        for scope in ("METADATA", "VECTOR")
    )  # fmt: skip
    ids: list[str] = []
    values: list[dict[str, object]] = []
    for id, key, value in connection.execute(
        "SELECT e.embedding_id, m.key, coalesce(m.string_value, m.int_value, m.float_value) "
        "FROM embeddings e JOIN embedding_metadata m ON m.id = e.id WHERE e.segment_id = ?",
        (metadata,),
    ):
        if not ids or ids[-1] != id:
            ids.append(id)
            values.append({})
        values[-1][key] = value
    elements = np.fromfile(work.folder / "chroma" / vectors / "data_level0.bin", np.float32)
    size = 1 + 32 + work.dimensions + 2
    matrix = elements[: len(elements) // size * size].reshape(-1, size)[:, 33:-2]
    table = pa.table(
        {
            "id": ids,
            "document": [row.pop("chroma:document") for row in values],
            "metadata": [json.dumps(row) for row in values],
        }
    )
    flat = pa.array(np.ascontiguousarray(matrix).reshape(-1))
    found = pa.table({"embedding": pa.FixedSizeListArray.from_arrays(flat, work.dimensions)})
    pq.write_table(table, work.folder / "bare.parquet", compression="zstd")
    pq.write_table(found, work.folder / "bare-vectors.parquet", compression="none",
                   use_dictionary=False)  # fmt: skip


def export(work: Work) -> None:
    migration(work).run(until="export")


BENCHMARK = Benchmark(
    steps={"paged script": script, "bare files": bare, "export": export},
    claims=[
        Claim("export", "export from a Chroma folder / paged script", ["export"],
              ["paged script"], bar=0.35),
        Claim("export, whole process",
              "export from a Chroma folder / paged script, whole processes", ["export"],
              ["paged script"], bar=0.35, figure="whole_seconds"),
        Claim("export, whole process, processor",
              "export from a Chroma folder / paged script, whole processes, CPU", ["export"],
              ["paged script"], figure="whole_cpu_seconds"),
        Claim("export, bare", "export from a Chroma folder / bare files to Parquet", ["export"],
              ["bare files"], bar=1.5),
        Claim("export, peak memory", "MB of export from a Chroma folder", ["export"],
              figure="peak_mb", bar=500),
    ],
    prepare=build,
    own_imports=WITHOUT_CHROMADB,
)  # fmt: skip

if __name__ == "__main__":
    BENCHMARK.main(__spec__.name, __doc__)
