from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import yaml

from reembed.commands.compare import compare
from reembed.commands.compare_page import page
from reembed.commands.recommend import Rival, recommend
from reembed.embedders.registry import open_embedder
from reembed.errors import ManifestError, PreflightError, UsageError
from reembed.manifest import Embed, Manifest, Model
from reembed.quality.statistics import paired_difference
from tests.campaigns.sabotage.run import WORDS, records
from tests.support.chroma_data import chroma, everything_in
from tests.support.commands import Command
from tests.support.following import follows_hint
from tests.support.report_page import read_page

COUNT = 400
ROOT = Path(__file__).resolve().parents[3]


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
        part = client.get_collection("docs", embedding_function=None).get(limit=120, offset=50)
    documents = part["documents"]
    assert documents is not None
    queries, qrels = tmp_path / "q.jsonl", tmp_path / "r.tsv"
    texts = [" ".join(sorted(set(text.split()) & set(WORDS))[:5]) for text in documents]
    lines = [json.dumps({"_id": f"q{n}", "text": text}) for n, text in enumerate(texts)]
    queries.write_text("\n".join(lines))
    judged = [f"q{n}\t{id}\t1" for n, id in enumerate(part["ids"])]
    qrels.write_text("\n".join(["query-id\tcorpus-id\tscore", *judged]))
    files = {"queries": str(queries), "qrels": str(qrels)}
    found = compare([manifest(folder, 256, **files), manifest(folder, 64)], sample=100)
    assert (found.kind, found.queries) == ("judged", 120)
    assert 120 <= found.sampled <= 220  # every record judged relevant is there
    qrels.write_text("query-id\tcorpus-id\tscore\nq1\tstranger\t1\n")
    with pytest.raises(PreflightError, match="no record judged relevant"):
        compare([manifest(folder, 256, **files), manifest(folder, 64)], sample=100)


@pytest.fixture(scope="module")
def made_by_wordllama(folder: Path) -> Path:
    """The same records with vectors of WordLlama, 64 dimensions, as the current model."""
    given = [row for row in records(COUNT).to_pylist() if row["document"]]
    with open_embedder(model(64), Embed(), folder) as embedder:
        vectors = embedder.embed_documents([row["document"] for row in given]).vectors
    with chroma(folder / "db") as client:
        made = client.create_collection("made", embedding_function=None,
                                        configuration={"hnsw": {"space": "cosine"}})  # fmt: skip
        made.add(ids=[row["id"] for row in given], documents=[row["document"] for row in given],
                 embeddings=vectors)  # fmt: skip
    return folder


def model(dimensions: int) -> Model:
    return Model(provider="static", name="wordllama", dimensions=dimensions)


def rival(folder: Path, dimensions: int, source: Mapping[str, object] | None = None) -> Manifest:
    data = yaml.safe_load(manifest(folder, dimensions).to_yaml())
    data["source"] = {"url": data["source"]["url"], "collection": "made"} | dict(source or {})
    return Manifest.parse(data, folder)


def test_the_current_model_is_a_rival_and_a_better_one_is_recommended(made_by_wordllama: Path):
    known = {"model": {"provider": "static", "name": "wordllama", "dimensions": 64}}
    folder = made_by_wordllama
    found = compare([rival(folder, 256, known), rival(folder, 64)], sample=300)
    assert found.current.model == "static wordllama" and not found.current.note
    same = found.candidates[1].metrics["recall"]["change"]
    assert same is not None and same.mean == 0, "the current model found again"
    assert found.recalls()["current"] == found.recalls()["to-64"]
    advice = found.recommendation
    assert (advice.choice, advice.headline) == ("to-256", "take to-256")
    assert "points of recall" in advice.why
    text = "".join(read_page(page(found)).text)
    assert "Take to-256" in text and "static wordllama" in text and "time for all" in text
    json.dumps(found.to_dict())


def test_a_current_model_that_cannot_be_asked_is_said(made_by_wordllama: Path):
    manifests = [rival(made_by_wordllama, 256), rival(made_by_wordllama, 64)]
    found = compare(manifests, sample=300)
    assert "the current model was not compared" in found.current.note
    assert found.current.dimensions == 64 and not found.current.metrics
    assert found.candidates[0].metrics["recall"]["change"] is None
    assert "of the candidates, to-256" in found.recommendation.headline
    assert "the current model was not compared" in found.notes[0]


def test_a_wrong_current_model_is_not_believed(folder: Path):
    given = rival(folder, 256, {"collection": "docs", "model": {
        "provider": "static", "name": "wordllama", "dimensions": 64}})  # fmt: skip
    other = rival(folder, 64, {"collection": "docs"})
    found = compare([given, other], sample=120)
    assert "the vectors have 2" in found.current.note


def recalls(hits: int, total: int = 400) -> np.ndarray:
    return np.array([1.0] * hits + [0.0] * (total - hits))


def named(name: str, hits: int, dimensions: int, now: int | None) -> Rival:
    change = None if now is None else paired_difference(recalls(hits), recalls(now), 0.95)
    return Rival(name, dimensions, None, recalls(hits), change)


@pytest.mark.parametrize(
    ("rivals", "choice", "words"),
    [
        ([("a", 350, 512), ("b", 300, 64)], "a", "take a"),
        ([("a", 351, 512), ("b", 350, 64)], "b", "take b"),
        ([("a", 300, 384), ("b", 200, 64)], "", "stay with the current model"),
        ([("a", 301, 384), ("b", 299, 128)], "b", "take b, for its smaller vectors"),
    ],
)
def test_advice_follows_the_figures(
    rivals: list[tuple[str, int, int]], choice: str, words: str
) -> None:
    advice = recommend([named(*one, 300) for one in rivals], 384, 0.02, 0.95)
    assert (advice.choice, advice.headline) == (choice, words)


def test_few_queries_give_no_advice() -> None:
    few = Rival("a", 64, None, recalls(9, 9), None)
    assert recommend([few, few], None, 0.02, 0.95).choice == ""


CRANFIELD = Path(__file__).resolve().parents[4] / "shared" / "data" / "cranfield"


@pytest.mark.long
@pytest.mark.skipif(not CRANFIELD.is_dir(), reason="../shared is not beside this checkout")
def test_three_models_on_judged_queries(tmp_path: Path):
    """MiniLM is the better model for aeronautics; WordLlama at 64 dimensions is there today."""
    lines = (CRANFIELD / "corpus.jsonl").read_text("utf-8").splitlines()
    docs = [one for one in map(json.loads, lines) if one["text"].strip()][:600]
    with open_embedder(model(64), Embed(), tmp_path) as embedder:
        vectors = embedder.embed_documents([one["text"] for one in docs]).vectors
    with chroma(tmp_path / "db") as client:
        made = client.create_collection("made", embedding_function=None,
                                        configuration={"hnsw": {"space": "cosine"}})  # fmt: skip
        made.add(ids=[one["_id"] for one in docs], documents=[one["text"] for one in docs],
                 embeddings=vectors)  # fmt: skip
    known = {"model": {"provider": "static", "name": "wordllama", "dimensions": 64}}
    files = {"queries": str(CRANFIELD / "queries.jsonl"), "qrels": str(CRANFIELD / "qrels.tsv")}
    data = yaml.safe_load(rival(tmp_path, 64, known).to_yaml()) | {
        "name": "minilm",
        "verify": files,
    }
    data["model"] = yaml.safe_load((ROOT / "manifests" / "demo.yaml").read_text())["model"]
    found = compare(
        [Manifest.parse(data, tmp_path), rival(tmp_path, 256), rival(tmp_path, 64)], sample=200
    )
    assert found.kind == "judged" and found.queries >= 100
    assert found.recommendation.choice == "minilm", found.recommendation
    assert set(found.recalls()) == {"current", "minilm", "to-256", "to-64"}


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
    assert "recommendation: " in shown.out and "\N{FULL BLOCK}" in shown.out
    file = folder / "models.html"
    document = command("compare", *paths, "--sample", 120, "--json", "-o", file).json
    assert file.read_text("utf-8").startswith("<!doctype html>")
    assert [one["manifest"] for one in document["candidates"]] == ["to-128", "to-64"]
    assert command("compare", paths[0], "--json").code == 2
