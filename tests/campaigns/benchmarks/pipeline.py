"""What the pipeline costs over the bare calls it is made of, as ratios from one run.

    python -m tests.campaigns.benchmarks.pipeline [--records 20000] [--dimensions 384]

For each stage the same work is done twice on the same collection: once by the few lines that anyone
would write (paged `get` to Parquet; a loop over the model; `add` in batches of 1,000), which check
and keep nothing, and once by reembed, which hashes, journals, deduplicates and can resume. Each
measurement is a process of its own, so that peak memory is its own too.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

PAGE = 1000
WORDS = 60


def embed(texts: list[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A model that costs next to nothing: letter counts, spread over the dimensions."""
    rows = np.zeros((len(texts), DIMENSIONS), np.float32)
    for row, text in zip(rows, texts, strict=True):
        counts = np.bincount(np.frombuffer(text.encode(), np.uint8), minlength=256)
        row[:256] = counts[:DIMENSIONS]
        row += SPREAD[zlib.crc32(text.encode()) % len(SPREAD)]
    return rows


DIMENSIONS = 384
SPREAD = np.random.default_rng(1).normal(size=(4096, DIMENSIONS)).astype(np.float32)


def build(folder: Path, records: int) -> None:
    """The source: documents of random words, some metadata, random vectors."""
    collection = _client(folder).create_collection("docs", embedding_function=None)
    generator = np.random.default_rng(0)
    words = ["".join(generator.choice(list("etaoinshrdlu"), 6)) for _ in range(5000)]
    for start in range(0, records, PAGE):
        count = min(PAGE, records - start)
        collection.add(
            ids=[f"id{start + i}" for i in range(count)],
            documents=[" ".join(generator.choice(words, WORDS)) for _ in range(count)],
            metadatas=[{"n": start + i, "half": (start + i) / 2} for i in range(count)],
            embeddings=generator.normal(size=(count, DIMENSIONS)).astype(np.float32),
        )


def bare_export(folder: Path) -> None:
    """Paged `get` with vectors into one Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer = None
    for page in _pages(folder, ["documents", "metadatas", "embeddings"]):
        table = pa.table(
            {
                "id": page["ids"],
                "document": page["documents"],
                "metadata": [json.dumps(metadata) for metadata in page["metadatas"]],
                "embedding": list(page["embeddings"]),
            }
        )
        writer = writer or pq.ParquetWriter(folder / "bare.parquet", table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()


def bare_embed(folder: Path) -> None:
    """A loop over the model, vectors kept as numpy files."""
    import pyarrow.parquet as pq

    for number, batch in enumerate(pq.ParquetFile(folder / "bare.parquet").iter_batches(PAGE)):
        np.save(folder / f"bare-{number:05d}.npy", embed(batch.column("document").to_pylist()))


def bare_load(folder: Path) -> None:
    """`add` in batches of 1,000."""
    import pyarrow.parquet as pq

    collection = _client(folder).create_collection("bare", embedding_function=None)
    for number, batch in enumerate(pq.ParquetFile(folder / "bare.parquet").iter_batches(PAGE)):
        collection.add(
            ids=batch.column("id").to_pylist(),
            documents=batch.column("document").to_pylist(),
            metadatas=[json.loads(text) for text in batch.column("metadata").to_pylist()],
            embeddings=np.load(folder / f"bare-{number:05d}.npy"),
        )


def reembed_stage(stage: str) -> Callable[[Path], None]:
    """A stage of a run; those before it are done already."""

    def run(folder: Path) -> None:
        from reembed.manifest import Manifest
        from reembed.migration import Migration

        data = {
            "name": "bench",
            "source": {"url": f"chroma:{folder / 'chroma'}", "collection": "docs"},
            "model": {
                "provider": "python",
                "name": f"{__spec__.name}:embed",
                "dimensions": DIMENSIONS,
            },
            "state": str(folder / "state"),
        }
        Migration(Manifest.parse(data, Path.cwd())).run(until=stage)  # type: ignore[arg-type]

    return run


STEPS: dict[str, Callable[[Path], None]] = {
    "bare export": bare_export,
    "reembed export": reembed_stage("export"),
    "bare embed": bare_embed,
    "reembed embed": reembed_stage("embed"),
    "bare load": bare_load,
    "reembed load": reembed_stage("load"),
}


def _client(folder: Path) -> Any:
    import chromadb

    return chromadb.PersistentClient(str(folder / "chroma"))


def _pages(folder: Path, include: list[str]) -> Iterator[Any]:
    collection = _client(folder).get_collection("docs", embedding_function=None)
    for offset in range(0, collection.count(), PAGE):
        yield collection.get(limit=PAGE, offset=offset, include=include)


def measure(step: str, folder: Path) -> dict[str, float]:
    """Seconds and peak memory (MB) of a step in a process of its own, imports left out."""
    command = [sys.executable, "-m", __spec__.name, "--step", step, "--folder", str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def one_step(step: str, folder: Path) -> None:
    """Do a step and print what it took."""
    import chromadb  # noqa: F401  (imported before the clock starts)

    import reembed.migration  # noqa: F401

    start = time.perf_counter()
    STEPS[step](folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": time.perf_counter() - start, "peak_mb": peak}))


def main() -> None:
    """Measure every step and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--step", choices=STEPS)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.step:
        one_step(options.step, options.folder)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build(folder, options.records)
        figures = {step: measure(step, folder) for step in STEPS}
    print(f"{options.records:,} records, {DIMENSIONS} dimensions, {WORDS} words each\n")
    print("| stage | bare, s | reembed, s | ratio | bare, MB | reembed, MB |")
    print("|---|---|---|---|---|---|")
    for stage in ("export", "embed", "load"):
        bare, ours = figures[f"bare {stage}"], figures[f"reembed {stage}"]
        print(
            f"| {stage} | {bare['seconds']:.1f} | {ours['seconds']:.1f} | "
            f"{ours['seconds'] / bare['seconds']:.2f} | {bare['peak_mb']:.0f} | "
            f"{ours['peak_mb']:.0f} |"
        )


if __name__ == "__main__":
    main()
