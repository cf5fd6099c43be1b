"""Stage 2: every text once, every vector with its record, every refusal with its reason."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reembed.embedders.sending.call import Embedded
from reembed.embedders.sending.outcome import Rejection
from reembed.errors import ProviderRefusedError, UnreachableError
from reembed.manifest.template import TextTemplate
from reembed.progress import Progress
from reembed.records import (
    QUARANTINE_SCHEMA,
    embed_schema,
    export_batch,
    fixed_array_to_vectors,
    text_hash,
)
from reembed.run.directory import RunDir, Shard
from reembed.run.ledger import Ledger
from reembed.run.quarantine import write_quarantine
from reembed.run.vector_cache import VectorCache
from reembed.stages.embed import Embedding, embed
from reembed.stages.engines import LocalEngine
from reembed.stores.canonical import metadata_text
from tests.support.chroma_data import chroma, plain_collection
from tests.support.commands import Calls
from tests.support.manifests import migration, quarantined, run_dir, write_manifest
from tests.support.texts import vector_of


class Words:
    """An embedder of two dimensions that notes what it is asked; `on_call` may interfere."""

    dimensions = 2

    def __init__(self, on_call: Callable[[Sequence[str]], None] | None = None) -> None:
        self.asked: list[str] = []
        self.on_call = on_call
        self.refused: dict[str, str] = {}
        self.cancelled = threading.Event()

    def embed_documents(self, texts: Sequence[str], on_batch: Any = None) -> Embedded:
        if self.on_call:
            self.on_call(texts)
        self.asked += texts
        found = Embedded(np.zeros((len(texts), 2), np.float32), np.zeros(len(texts), np.int32))
        for index, text in enumerate(texts):
            if text in self.refused:
                found.rejected[index] = Rejection("refused", self.refused[text])
                continue
            found.vectors[index], found.tokens[index] = self.vector(text), len(text)
            on_batch([index], found.vectors[[index]], found.tokens[[index]])
        return found

    @staticmethod
    def vector(text: str) -> tuple[float, float]:
        return float(len(text)), float(text_hash(text)[0] + 1)

    def cancel(self) -> None:
        self.cancelled.set()


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir.create(tmp_path / "state", "name: x\n", {"name": "x"})


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[VectorCache]:
    with VectorCache(tmp_path / "cache.vectors", 2) as opened:
        yield opened


def shard(run: RunDir, stem: str, rows: dict[str, str | None]) -> Shard:
    """An export shard of ids and documents; each has its id as a title."""
    ids = list(rows)
    batch = export_batch(
        ids, list(rows.values()), [metadata_text({"title": id}) for id in ids], [None] * len(ids)
    )
    return run.write_shard("export", stem, pa.Table.from_batches([batch]))


def go(run: RunDir, cache: VectorCache, words: Words, text: str = "{document}") -> dict[str, Shard]:
    work = Embedding(run, words, TextTemplate(text), cache)  # type: ignore[arg-type]
    return embed(run.shards("export"), work, LocalEngine(), Progress())


def vectors(run: RunDir, stem: str) -> dict[str, list[float]]:
    table = run.read_shard(run.shards("embed")[stem])
    values = fixed_array_to_vectors(table.column("embedding")).tolist()
    return dict(zip(table.column("id").to_pylist(), values, strict=True))


def test_each_record_gets_the_vector_of_its_text(run: RunDir, cache: VectorCache) -> None:
    shard(run, "shard-00000", {"a": "one", "b": "three", "c": "one"})
    words = Words()
    made = go(run, cache, words)
    assert sorted(words.asked) == ["one", "three"], "equal texts are embedded once"
    expected = {"a": "one", "b": "three", "c": "one"}
    assert vectors(run, "shard-00000") == {
        id: list(Words.vector(text)) for id, text in expected.items()
    }
    table = run.read_shard(made["shard-00000"])
    assert table.schema.equals(embed_schema(2))
    assert table.column("text_sha256").to_pylist() == [text_hash(t) for t in expected.values()]
    assert table.column("tokens").to_pylist() == [3, 5, 3]
    assert made["shard-00000"].source == run.shards("export")["shard-00000"].sha256


def test_the_template_gives_the_text(run: RunDir, cache: VectorCache) -> None:
    shard(run, "shard-00000", {"a": "one", "b": None})
    words = Words()
    go(run, cache, words, "{metadata.title}: {document}")
    assert words.asked == ["a: one", "b: "]


def test_texts_of_two_shards_at_work_are_paid_for_once(run: RunDir, cache: VectorCache) -> None:
    both = threading.Barrier(2, timeout=10)

    def meet(texts: Sequence[str]) -> None:
        if len(texts) > 1:
            both.wait()

    words = Words(meet)
    shard(run, "shard-00000", {f"a{n}": f"text {n}" for n in range(0, 60)})
    shard(run, "shard-00001", {f"b{n}": f"text {n}" for n in range(30, 90)})
    go(run, cache, words)
    assert sorted(words.asked) == sorted(f"text {n}" for n in range(90))
    assert len(vectors(run, "shard-00001")) == 60


def test_a_text_that_another_shard_has_just_finished_is_not_paid_for_again(
    run: RunDir, tmp_path: Path
) -> None:
    """The cache is asked after the claim, because another shard may end between the two."""

    class Racing(VectorCache):
        raced = False

        def get(self, hashes: Sequence[bytes]) -> Any:
            found = super().get(hashes)
            if not self.raced:
                self.raced = True
                other.join()
            return found

    words = Words()
    shard(run, "shard-00000", {"a": "same"})
    shard(run, "shard-00001", {"b": "same"})
    other = threading.Thread(target=lambda: None)
    other.start()
    with Racing(tmp_path / "racing.vectors", 2) as cache:
        go(run, cache, words)
    assert words.asked == ["same"]


def test_records_without_text_and_refused_ones_go_to_quarantine(
    run: RunDir, cache: VectorCache
) -> None:
    shard(run, "shard-00000", {"a": "one", "b": None, "c": " \n", "d": "bad", "e": "bad"})
    words = Words()
    words.refused["bad"] = "not polite"
    go(run, cache, words)
    with Ledger(run) as ledger:
        assert write_quarantine(run, ledger) == 4
        assert ledger.counts() == (5, 4)
    table = pq.read_table(run.path / "quarantine.parquet")
    assert table.schema.equals(QUARANTINE_SCHEMA)
    assert {row["id"]: (row["reason"], row["detail"]) for row in table.to_pylist()} == {
        "b": ("no_text", "the template gives no text for it"),
        "c": ("no_text", "the template gives no text for it"),
        "d": ("refused", "not polite"),
        "e": ("refused", "not polite"),
    }
    assert vectors(run, "shard-00000").keys() == {"a"}


def test_quarantine_follows_the_newest_shard(run: RunDir, cache: VectorCache) -> None:
    shard(run, "shard-00000", {"a": None, "b": "two", "c": None})
    shard(run, "delta-00000", {"a": "mended", "b": None})
    go(run, cache, Words())
    with Ledger(run) as ledger:
        write_quarantine(run, ledger)
    assert quarantined(run) == {"b": "no_text", "c": "no_text"}


def test_a_finished_shard_is_never_embedded_again(run: RunDir, cache: VectorCache) -> None:
    shard(run, "shard-00000", {"a": "one"})
    go(run, cache, Words())
    journal = run.journal.path.read_bytes()
    words = Words()
    go(run, cache, words)
    assert words.asked == []
    assert run.journal.path.read_bytes() == journal


@pytest.mark.parametrize("harm", ["flip", "delete", "outdated"])
def test_a_damaged_or_outdated_shard_is_made_again_from_the_cache(
    run: RunDir, cache: VectorCache, harm: str
) -> None:
    shard(run, "shard-00000", {"a": "one", "b": "two"})
    made = go(run, cache, Words())
    path = run.path / made["shard-00000"].name
    whole = path.read_bytes()
    words = Words()
    if harm == "flip":
        path.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    elif harm == "delete":
        path.unlink()
    else:
        shard(run, "shard-00000", {"a": "one", "b": "three"})
    go(run, cache, words)
    assert words.asked == (["three"] if harm == "outdated" else [])
    assert (path.read_bytes() == whole) == (harm != "outdated")


def test_what_was_paid_before_a_failure_is_kept(run: RunDir, cache: VectorCache) -> None:
    shard(run, "shard-00000", {f"a{n}": f"text {n}" for n in range(10)})

    class Failing(Words):
        def embed_documents(self, texts: Sequence[str], on_batch: Any = None) -> Embedded:
            super().embed_documents(texts[:6], on_batch)
            raise UnreachableError("away")

    with pytest.raises(UnreachableError):
        go(run, cache, Failing())
    assert "shard-00000" not in run.shards("embed")
    words = Words()
    go(run, cache, words)
    assert len(words.asked) == 4


def test_the_first_failure_stops_the_other_shard(run: RunDir, cache: VectorCache) -> None:
    words = Words()

    def fail(texts: Sequence[str]) -> None:
        if "slow" in texts:
            if not words.cancelled.wait(20):
                raise AssertionError("it was not stopped")
            raise UnreachableError("stopped")
        raise ProviderRefusedError("no")

    words.on_call = fail
    shard(run, "shard-00000", {"a": "slow"})
    shard(run, "shard-00001", {"b": "x"})
    with pytest.raises(ProviderRefusedError):
        go(run, cache, words)
    assert words.cancelled.is_set()


# With a real model


def test_a_provider_that_fails_in_the_middle_is_resumed(
    tmp_path: Path, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    with chroma(tmp_path / "db") as client:
        plain_collection(client, count=200)
    path = write_manifest(
        tmp_path, f"chroma:{tmp_path / 'db'}",
        model__options={"batch_items": 10, "retry_attempts": 2, "retry_wait": 0.01},
        embed__concurrency=1,
    )  # fmt: skip
    migration(path).run(until="export")
    calls.clear()
    monkeypatch.setenv("REEMBED_TEST_BREAK", "record 150 ")
    with pytest.raises(UnreachableError, match="the model is away"):
        migration(path).run(until="embed")
    monkeypatch.delenv("REEMBED_TEST_BREAK")
    assert migration(path).run(until="embed").state == "embedded"
    assert calls.repeated("new", 200) <= 10


@pytest.mark.parametrize("shared", [True, False])
def test_another_migration_pays_nothing_where_the_cache_is_shared(
    tmp_path: Path, database: Path, calls: Calls, shared: bool
) -> None:
    migration(write_manifest(tmp_path, f"chroma:{database}", embed__cache=shared)).run(
        until="embed"
    )
    path = write_manifest(
        tmp_path, f"chroma:{database}", name="again", target__collection="again",
        embed__cache=shared,
    )  # fmt: skip
    migration(path).run(until="export")
    calls.clear()
    migration(path).run(until="embed")
    assert len([text for text in calls.texts("new") if text]) >= 9, "the probes"
    assert (len(calls.texts("new")) > 40) != shared


def test_a_changed_prefix_is_another_model_to_the_cache(
    tmp_path: Path, database: Path, calls: Calls
) -> None:
    migration(write_manifest(tmp_path, f"chroma:{database}")).run(until="embed")
    path = write_manifest(
        tmp_path, f"chroma:{database}", name="again", model__document_prefix="passage: "
    )
    migration(path).run(until="embed")
    run = run_dir(path)
    table = run.read_shard(run.shards("embed")["shard-00000"])
    document = run.read_shard(run.shards("export")["shard-00000"]).column("document")[0].as_py()
    np.testing.assert_allclose(
        fixed_array_to_vectors(table.column("embedding"))[0],
        vector_of("new", f"passage: {document}"), rtol=1e-5,
    )  # fmt: skip
