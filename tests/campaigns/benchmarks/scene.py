"""What benchmarks on Chroma share: the source, models that cost nothing, and a run of reembed."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.campaigns.benchmarks.measuring import Step, Work

PAGE = 1000
WORDS = 60


@functools.cache
def _spread(dimensions: int) -> Any:
    return np.random.default_rng(1).standard_normal((4096, dimensions), np.float32)


def _embed(texts: list[str], dimensions: int) -> Any:
    """A model that costs next to nothing: letter counts, spread over the dimensions."""
    rows = _spread(dimensions)[[zlib.crc32(text.encode()) % 4096 for text in texts]]
    for row, text in zip(rows, texts, strict=True):
        counts = np.bincount(np.frombuffer(text.encode(), np.uint8), minlength=256)
        row[:256] += counts[: min(256, dimensions)]
    return rows


def embed_384(texts: list[str]) -> Any:
    return _embed(texts, 384)


def embed_768(texts: list[str]) -> Any:
    return _embed(texts, 768)


def embed_1536(texts: list[str]) -> Any:
    return _embed(texts, 1536)


def embed(texts: list[str], dimensions: int) -> Any:
    """As `model(dimensions)` does, for the scripts."""
    return _embed(texts, dimensions)


def model(dimensions: int) -> dict[str, Any]:
    """The manifest's `model` for one of them."""
    return {
        "provider": "python", "name": f"{__name__}:embed_{dimensions}", "dimensions": dimensions,
    }  # fmt: skip


def texts(records: int, words: int = WORDS) -> Iterator[str]:
    """Texts of random words, all different."""
    generator = np.random.default_rng(0)
    known = ["".join(generator.choice(list("etaoinshrdlu"), 6)) for _ in range(5000)]
    for _ in range(records):
        yield " ".join(known[place] for place in generator.integers(len(known), size=words))


def build(work: Work) -> None:
    """The source `docs`: documents of random words, some metadata, random vectors."""
    collection = client(work.folder).create_collection("docs", embedding_function=None)
    for ids, documents, metadatas, vectors in _source(work):
        collection.add(ids=ids, documents=documents, metadatas=metadatas, embeddings=vectors)


def build_filled(work: Work) -> None:
    """The same source, filled past Chroma's `add`, which takes many minutes for a large one."""
    from reembed.records import export_batch
    from reembed.stores.canonical import metadata_text
    from reembed.stores.registry import open_store

    made = client(work.folder).create_collection("docs", embedding_function=None)
    store = open_store(f"chroma:{work.folder / 'chroma'}")
    assert store.bulk is not None
    filling = store.bulk.begin(str(made.id), "l2", work.dimensions, work.records)
    for ids, documents, metadatas, vectors in _source(work):
        texts = [metadata_text(metadata) for metadata in metadatas]
        filling.add(export_batch(ids, documents, texts, [None] * len(ids)), vectors)
    filling.finish()
    store.close()


def _source(work: Work) -> Iterator[tuple[list[str], list[str], list[dict[str, Any]], Any]]:
    """Pages of ids, documents, metadata and vectors, `(n, d) float32`."""
    generator, written = np.random.default_rng(0), texts(work.records)
    for start in range(0, work.records, PAGE):
        rows = range(start, min(start + PAGE, work.records))
        yield (
            [f"id{row}" for row in rows],
            [next(written) for _ in rows],
            [{"n": row, "half": row / 2} for row in rows],
            generator.normal(size=(len(rows), work.dimensions)).astype(np.float32),
        )


def client(folder: Path) -> Any:
    """A plain Chroma client on the scene's database."""
    import chromadb

    return chromadb.PersistentClient(str(folder / "chroma"))


def pages(folder: Path, include: list[str]) -> Iterator[Any]:
    """The source by plain `get`, page by page."""
    collection = client(folder).get_collection("docs", embedding_function=None)
    for offset in range(0, collection.count(), PAGE):
        yield collection.get(limit=PAGE, offset=offset, include=include)


def migration(work: Work, bulk: str = "never", **changes: Any) -> Any:
    """A migration of `docs`, one a round: what an earlier step did of it is done.

    Args:
        bulk: `always` fills the new collection past Chroma's `add`.
        changes: keys of the manifest.
    """
    from reembed.manifest import Manifest
    from reembed.migration import Migration

    data: dict[str, Any] = {
        "name": f"bench{work.round}",
        "source": {"url": f"chroma:{work.folder / 'chroma'}", "collection": "docs"},
        "model": model(work.dimensions),
        "state": str(work.folder / f"state{work.round}"),
    }
    data |= changes
    data["target"] = {"collection": f"docs-{data['name']}", "bulk": bulk} | changes.get(
        "target", {}
    )
    return Migration(Manifest.parse(data, Path.cwd()))


def stage_steps(moved: Callable[..., Any] = migration) -> dict[str, Step]:
    """A step for each stage of a migration, and one for its swap.

    Args:
        moved: makes the migration of a piece of work, as `migration` does.
    """

    def until(stage: str) -> Step:
        def step(work: Work) -> None:
            moved(work).run(until=stage)

        return step

    def swap(work: Work) -> None:
        moved(work).swap()

    return {stage: until(stage) for stage in ("export", "embed", "load", "verify")} | {"swap": swap}


def whole_step(moved: Callable[..., Any] = migration, **changes: Any) -> Step:
    """A step that does all stages of a second migration."""

    def whole(work: Work) -> None:
        moved(work, name=f"whole{work.round}", **changes).run()

    return whole
