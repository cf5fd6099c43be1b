"""A finished run to damage: 2,400 records moved by the real stages between stores in memory."""

from __future__ import annotations

import random
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa

import reembed.stages.export
import reembed.verify.search_gates
from reembed.embedders.embedder import Embedder
from reembed.embedders.registry import open_embedder
from reembed.embedders.sending.call import Embedded
from reembed.manifest import Model, Verify
from reembed.manifest.template import TextTemplate
from reembed.progress import Progress
from reembed.quality.verdict import Gate
from reembed.records import (
    Metric,
    Vectors,
    embed_schema,
    export_batch,
    fixed_array_to_vectors,
    unit,
    vectors_to_fixed_array,
)
from reembed.run.directory import RunDir
from reembed.run.ledger import Ledger
from reembed.run.quarantine import write_quarantine
from reembed.run.vector_cache import VectorCache
from reembed.stages.embed import Embedding, embed
from reembed.stages.engines import LocalEngine
from reembed.stages.export import export, take_census
from reembed.stages.load import ensure_shadow, load
from reembed.stores.canonical import metadata_text
from reembed.stores.collection import Collection as Handle
from reembed.stores.store import Store
from reembed.stores.values import CollectionSpec
from reembed.verify.embedded import EmbeddedVerification
from tests.support.array_store import Arrays, Collection, Row, arrays_of

RECORDS = 2_400
SHARD = 600
WITHOUT_TEXT = 3
FEWER = 400
"""Queries asked where one gate alone is looked at."""
SHADOW = "shadow"
TEXT = "{metadata.title}\n{document}"
PREFIX = "search document about: "
NEW = Model(provider="static", name="wordllama", dimensions=256, document_prefix=PREFIX,
            query_prefix="search query: ", normalize=True)  # fmt: skip
OLD = Model(provider="static", name="wordllama", dimensions=128)

WORDS = """
harbour lantern quarry meadow copper violin orchard glacier saddle timber parcel ribbon anchor
bishop candle dragon ember falcon garnet hollow island jasper kettle ladder marble needle oyster
pebble quiver raven sickle thistle umbrella velvet walnut zephyr alcove beacon cinder dagger easel
fiddle gravel hamlet juniper keystone engine river market winter doctor music paper window teacher
planet theory muscle protein voltage rocket pension treaty virus sermon ballad budget contract
enzyme galaxy hurricane insect kidney lawyer magnet nerve orbit pollen quartz reactor
""".split()  # noqa: SIM905


def document(chance: random.Random) -> str:
    """A text about a few things, of 15 to 400 words, most of them short."""
    topic = chance.sample(WORDS, 9)
    words = min(400, max(15, int(chance.lognormvariate(3.9, 0.8))))
    body = [chance.choice(topic if chance.random() < 0.7 else WORDS) for _ in range(words)]
    return " ".join(body) + "."


def records(count: int = RECORDS) -> pa.RecordBatch:
    """Records with every kind of metadata, some without a document, a few without any text."""
    chance = random.Random(1)
    documents: list[str | None] = []
    metadatas = []
    for number in range(count):
        text: str | None = document(chance)
        if number % 40 == 7 and number > 100:
            text = documents[number - 50]  # equal texts
        title = f"Café No. {number}" if number % 40 else f"Café No. {number // 80}"
        metadata = {
            "title": title, "lang": ("en", "de", "fr", "da")[number % 4],
            "score": float(number % 7), "rank": number, "public": number % 2 == 0,
        }  # fmt: skip
        if number % 90 == 11:
            text = None
        if number < WITHOUT_TEXT:
            text, metadata = None, {"lang": "en"}
        documents.append(text)
        metadatas.append(metadata_text(metadata))
    uris = [f"file:///{number}.txt" if number % 3 == 0 else None for number in range(count)]
    return export_batch(
        [f"doc-{number:05d}" for number in range(count)], documents, metadatas, uris
    )


def _settings() -> Verify:
    return Verify(allow_quarantined=WITHOUT_TEXT)


@dataclass
class Finished:
    """A run that went through export, embed and load.

    Attributes:
        store: holds `source` and `shadow`.
        seed: of the samples that verifying draws.
        cut: vectors of the texts cut at 128 tokens, once they were asked for.
    """

    run: RunDir
    store: Store
    embedder: Embedder
    old_embedder: Embedder | None
    metric: Metric = "cosine"
    seed: int = 0
    settings: Verify = field(default_factory=_settings)
    shadow_id: str = SHADOW
    cut: dict[str, Vectors] = field(default_factory=dict)

    @property
    def arrays(self) -> Arrays:
        return arrays_of(self.store)

    @property
    def shadow(self) -> Collection:
        return self.arrays.held[SHADOW]

    @property
    def rows(self) -> dict[str, Row]:
        return self.shadow.rows

    @contextmanager
    def copy(self, folder: Path, seed: int) -> Iterator[Finished]:
        """A copy to damage."""
        shutil.rmtree(folder, ignore_errors=True)
        path = folder / self.run.run_id
        shutil.copytree(self.run.path, path)
        yield Finished(RunDir(path), self.arrays.clone().store(), self.embedder, self.old_embedder,
                       self.metric, seed, self.settings, cut=self.cut)  # fmt: skip
        shutil.rmtree(folder)

    @contextmanager
    def verification(self) -> Iterator[EmbeddedVerification]:
        with Ledger(self.run) as ledger:
            verification = EmbeddedVerification(
                run=self.run, shadow=Handle(self.store, self.shadow_id),
                source_metric="cosine", target_metric=self.metric,
                template=TextTemplate(TEXT), embedder=self.embedder,
                old_embedder=self.old_embedder, old_model_note="it is not called here",
                ledger=ledger, settings=self.settings,
            )  # fmt: skip
            verification.seed = self.seed
            yield verification

    def gate(self, name: str) -> Gate:
        """The outcome of one gate."""
        with self.verification() as verification:
            if name == "integrity":
                return verification.integrity(Progress())
            if name == "fidelity":
                return verification.fidelity()
            if name == "index":
                verification.old_embedder = None
            return next(gate for gate in self._searches(verification) if gate.name == name)

    def gates(self) -> list[Gate]:
        """The outcomes of all gates, of fewer queries than usual."""
        with self.verification() as verification:
            gates = [verification.integrity(Progress()), verification.fidelity()]
            return gates + self._searches(verification)

    def _searches(self, verification: EmbeddedVerification) -> list[Gate]:
        verification.settings = self.settings.model_copy(update={"sample": FEWER})
        with mock.patch.object(reembed.verify.search_gates, "TIMED_QUERIES", 1):
            return verification.searches()

    # What a fault needs

    def embedded(self, stem: str) -> pa.Table:
        return self.run.read_shard(self.run.shards("embed")[stem])

    def texts(self) -> dict[str, str]:
        """Id to text of every record that was embedded."""
        with self.verification() as verification:
            everything = [id for stem in verification.embeds for id in
                          verification.corpus.page(stem).ids]  # fmt: skip
            return {id: r.text for id, r in verification.corpus.records(everything).items()}

    def give(self, vectors: dict[str, Vectors], keys: dict[str, bytes] | None = None) -> None:
        """Let these records have been embedded and loaded with other vectors."""
        for stem, shard in self.run.shards("embed").items():
            table = self.embedded(stem)
            ids = table.column("id").to_pylist()
            if not vectors.keys() & set(ids):
                continue
            matrix = fixed_array_to_vectors(table.column("embedding")).copy()
            hashes = table.column("text_sha256").to_pylist()
            for row, id in enumerate(ids):
                if id in vectors:
                    matrix[row] = vectors[id]
                    hashes[row] = (keys or {}).get(id, hashes[row])
                    if id in self.rows:
                        self.set_row(id, vector=matrix[row].copy())
            columns = [table.column("id"), pa.array(hashes, pa.binary(32)), table.column("tokens"),
                       vectors_to_fixed_array(matrix)]  # fmt: skip
            changed = pa.table(columns, schema=embed_schema(matrix.shape[1]))
            self.run.write_shard("embed", stem, changed, source=shard.source)

    def set_row(self, id: str, **changes: object) -> None:
        """Change fields of a record as the store holds it."""
        row = self.rows[id]
        fields = {name: getattr(row, name) for name in ("document", "metadata", "uri", "vector")}
        self.rows[id] = Row.make(id, **(fields | changes))


def finish(
    folder: Path,
    new: Callable[[], Embedder] = lambda: open_embedder(NEW),
    metric: Metric = "cosine",
    count: int = RECORDS,
) -> Finished:
    """Export, embed and load a collection."""
    store = Arrays().store()
    old = open_embedder(OLD)
    embedder = new()
    given = records(count)
    template = TextTemplate(TEXT)
    texts = template.texts_of(given)
    held = [text if text.strip() else "nothing" for text in texts]
    store.to_write().create(
        CollectionSpec(
            "source", dimensions=128, metric="cosine", index={}, metadata=None, model=OLD
        )
    )
    store.to_write().write("source", given, old.embed_documents(held).vectors, "add")
    run = RunDir.create(folder, "", {})
    progress, source = Progress(), Handle(store, "source")
    with mock.patch.object(reembed.stages.export, "SHARD_ROWS", SHARD):
        census = take_census(source, store.catalog.describe("source"), run)
        export(source, census, run, progress)
    cache = VectorCache(folder / "cache.vectors", embedder.dimensions)
    work = Embedding(run, embedder, template, cache)
    embed(run.shards("export"), work, LocalEngine(), progress)
    cache.close()
    with Ledger(run) as ledger:
        write_quarantine(run, ledger)
        spec = CollectionSpec(SHADOW, embedder.dimensions, metric, {}, None, NEW)
        ensure_shadow(store, run, spec)
        load(Handle(store, SHADOW), run, ledger, progress)
    return Finished(run, store, embedder, old, metric)


@cache
def _turn(d: int) -> Vectors:
    turn, _ = np.linalg.qr(np.random.default_rng(5).normal(size=(d, d)))
    return np.asarray(turn, np.float32)


def other_model(vectors: Vectors) -> Vectors:
    """What another model of the same dimension might give: the space turned at random."""
    return np.asarray(vectors @ _turn(vectors.shape[-1]), np.float32)


class WorseModel:
    """A model whose vectors are drowned in noise, the same for the same text."""

    def __init__(self, good: Embedder, noise: float, seed: int) -> None:
        self._good, self._noise, self._seed = good, noise, seed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._good, name)

    def embed_documents(self, texts: Sequence[str]) -> Embedded:
        found = self._good.embed_documents(texts)
        return Embedded(self._drowned(texts, found.vectors), found.tokens, found.rejected)

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        return self._drowned(texts, self._good.embed_queries(texts))

    def _drowned(self, texts: Sequence[str], vectors: Vectors) -> Vectors:
        noise = [np.random.default_rng([self._seed, zlib.crc32(text.encode())])
                 .normal(size=vectors.shape[1]) for text in texts]  # fmt: skip
        drowned = vectors + self._noise * np.asarray(noise, np.float32) / vectors.shape[1] ** 0.5
        return unit(np.asarray(drowned, np.float32))


def vectors_of(embedder: Embedder, texts: Sequence[str]) -> Vectors:
    return embedder.embed_documents(texts).vectors
