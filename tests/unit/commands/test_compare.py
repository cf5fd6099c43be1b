from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from reembed.commands.compare import compare
from reembed.errors import ManifestError, PreflightError, UsageError
from reembed.manifest import Manifest
from tests.campaigns.sabotage.run import WORDS, records
from tests.support.following import follows_hint
from tests.support.helpers import Command, chroma, everything_in

COUNT = 400


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collection of 400 records, embedded by nobody in particular."""
    folder = tmp_path_factory.mktemp("compare")
    given = [row for row in records(COUNT).to_pylist() if row["document"]]
    with chroma(folder / "db") as client:
        made = client.create_collection(
            "docs", embedding_function=None, configuration={"hnsw": {"space": "cosine"}}
        )
        made.add(
            ids=[row["id"] for row in given], documents=[row["document"] for row in given],
            metadatas=[json.loads(row["metadata"]) for row in given],
            embeddings=np.random.default_rng(1).normal(size=(len(given), 2)).astype(np.float32),
        )  # fmt: skip
    return folder


def manifest(folder: Path, dimensions: int, **verify: object) -> Manifest:
    data = {
        "name": f"to-{dimensions}",
        "source": {"url": "chroma:./db", "collection": "docs"},
        "model": {"provider": "static", "name": "wordllama", "dimensions": dimensions},
        "verify": verify,
        "state": "./state",
    }
    return Manifest.parse(data, folder)


def test_a_weaker_model_is_told_apart_and_nothing_is_written(folder: Path):
    before = everything_in(folder / "db")
    found = compare([manifest(folder, 256), manifest(folder, 64)], sample=300)
    assert (found.kind, found.sampled, found.queries) == ("known-item", 300, 300)
    strong, weak = found.candidates
    assert (strong.dimensions, weak.dimensions) == (256, 64)
    assert strong.metrics["recall"]["difference"] is None
    difference = weak.metrics["ndcg"]["difference"]
    assert difference is not None
    assert difference.high < 0
    assert strong.tokens == weak.tokens > strong.sample_tokens > 0
    assert strong.index_bytes - weak.index_bytes == found.records * 4 * (256 - 64)
    assert (strong.usd, strong.rejected) == (None, 0)
    assert everything_in(folder / "db") == before
    assert not (folder / "state").exists()


def test_the_same_seed_gives_the_same_figures(folder: Path):
    manifests = [manifest(folder, 128), manifest(folder, 64)]
    first, again = (compare(manifests, sample=150, seed=3).to_dict() for _ in range(2))
    other = compare(manifests, sample=150, seed=4).to_dict()
    for document in (first, again, other):
        for candidate in document["candidates"]:
            del candidate["seconds"]
    assert first == again
    assert first["candidates"] != other["candidates"]
    json.dumps(first)


def test_judged_queries_are_taken_where_the_first_manifest_names_them(folder: Path, tmp_path: Path):
    with chroma(folder / "db") as client:
        page = client.get_collection("docs", embedding_function=None).get(limit=120, offset=50)
    documents = page["documents"]
    assert documents is not None
    queries, qrels = tmp_path / "q.jsonl", tmp_path / "r.tsv"
    texts = [" ".join(sorted(set(text.split()) & set(WORDS))[:5]) for text in documents]
    lines = [json.dumps({"_id": f"q{n}", "text": text}) for n, text in enumerate(texts)]
    queries.write_text("\n".join(lines))
    judged = [f"q{n}\t{id}\t1" for n, id in enumerate(page["ids"])]
    qrels.write_text("\n".join(["query-id\tcorpus-id\tscore", *judged]))
    files = {"queries": str(queries), "qrels": str(qrels)}
    found = compare([manifest(folder, 256, **files), manifest(folder, 64)], sample=100)
    assert (found.kind, found.queries) == ("judged", 120)
    assert 120 <= found.sampled <= 220  # every record judged relevant is there
    qrels.write_text("query-id\tcorpus-id\tscore\nq1\tstranger\t1\n")
    with pytest.raises(PreflightError, match="no record judged relevant"):
        compare([manifest(folder, 256, **files), manifest(folder, 64)], sample=100)


def test_what_cannot_be_compared_is_refused(folder: Path):
    with pytest.raises(UsageError, match="two manifests"):
        compare([manifest(folder, 64)])
    with pytest.raises(UsageError, match="--sample 5"):
        compare([manifest(folder, 64), manifest(folder, 128)], sample=5)
    other = manifest(folder, 128)
    other = other.model_copy(update={"source": other.source.model_copy(update={"collection": "x"})})
    with pytest.raises(ManifestError, match=r"source\.collection"):
        compare([manifest(folder, 64), other])


@follows_hint("Write source.collection: NAME instead")
def test_manifests_of_several_collections_are_refused_and_the_hint_leads_on(folder: Path):
    several = []
    for dimensions in (128, 64):
        data = yaml.safe_load(manifest(folder, dimensions).to_yaml())
        del data["source"]["collection"]
        data["source"]["collections"] = "*"
        several.append(Manifest.model_validate(data))
    with pytest.raises(
        ManifestError, match=r"to-128: source\.collections names several"
    ) as refused:
        compare(several, sample=100)
    assert "Write source.collection: NAME instead" in refused.value.hint
    alone = [one.member("docs", one.name, folder / "state") for one in several]
    assert len(compare(alone, sample=100).candidates) == 2


def test_the_command_prints_a_table_or_one_document(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    paths = []
    for dimensions in (128, 64):
        path = folder / f"{dimensions}.yaml"
        path.write_text(manifest(folder, dimensions).to_yaml())
        paths.append(path)
    command = Command(capsys, monkeypatch)
    shown = command("compare", *paths, "--sample", 120)
    assert shown.code == 0
    assert "to-128" in shown.out and "recall@10" in shown.out
    document = command("compare", *paths, "--sample", 120, "--json").json
    assert [one["manifest"] for one in document["candidates"]] == ["to-128", "to-64"]
    assert command("compare", paths[0], "--json").code == 2
