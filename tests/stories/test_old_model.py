"""What is said of the old model is believed only if the model makes the vectors that are there.
Each hint is followed, and then nothing is said any more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from reembed.migration import Migration
from tests.support.chroma_data import chroma
from tests.support.following import follows_hint
from tests.support.manifests import migration
from tests.unit.manifest.test_layouts import node

MODEL = """
import zlib
import numpy as np

def _each(texts, width):
    seeds = [zlib.crc32(text.encode()) + width for text in texts]
    return np.stack([np.random.default_rng(s).standard_normal(width) for s in seeds]).astype("f4")

def old(texts): return _each(texts, 48)
def other(texts): return -_each(texts, 48)
def new(texts): return _each(texts, 64)
"""
OLD = {"provider": "python", "name": "hashed:old"}
TEXTS = [f"first line of {n}\nand a second" for n in range(20)]


def collection(folder: Path, embedded: list[str], metadatas: list[Any]) -> None:
    """A collection of TEXTS with the old model's vectors of what was embedded."""
    (folder / "hashed.py").write_text(MODEL)
    made: dict[str, Any] = {}
    exec(MODEL, made)
    with chroma(folder / "db") as client:
        client.create_collection("docs", embedding_function=None).add(
            ids=[f"r{n}" for n in range(len(TEXTS))], documents=TEXTS,
            metadatas=metadatas, embeddings=np.asarray(made["old"](embedded)),
        )  # fmt: skip


def manifest(folder: Path, model: dict[str, Any] | None = OLD, **changes: Any) -> Migration:
    source = {"url": f"chroma:{folder}/db", "collection": "docs", "model": model}
    data = {"name": "m", "source": source | changes.pop("source", {}),
            "model": {"provider": "python", "name": "hashed:new"}} | changes  # fmt: skip
    path = folder / "m.yaml"
    path.write_text(yaml.safe_dump(data))
    return migration(path)


def told(moving: Migration) -> list[tuple[str, str]]:
    """What the plan says of the old model."""
    plan = moving.plan()
    assert plan.ok, plan.blockers
    words = "old model", "vectors of these texts", "text that was embedded"
    return [(one.message, one.hint) for one in plan.warnings
            if any(word in one.message for word in words)]  # fmt: skip


TITLES: list[dict[str, Any]] = [{"title": f"title {n}"} for n in range(len(TEXTS))]
NODES = [json.loads(node({"title": f"title {n}"})) for n in range(len(TEXTS))]
WITH_TITLES = [f"title: title {n}\n\n{text}" for n, text in enumerate(TEXTS)]
WRONG_TEXTS: dict[str, Any] = {
    "the document alone": (
        TEXTS, TITLES, {"text": "{metadata.title} {document}"},
        'source.layout: plain and text: "{document}"',
        {"source": {"layout": "plain"}, "text": "{document}"},
    ),
    "the same with spaces for its line breaks": (
        [text.replace("\n", " ") for text in TEXTS], TITLES, {}, "line_breaks: space",
        {"line_breaks": "space"},
    ),
    "the same with line breaks": (
        TEXTS, TITLES, {"line_breaks": "space"}, "line_breaks: keep", {"line_breaks": "keep"},
    ),
    "what its framework embeds": (
        WITH_TITLES, NODES, {"source": {"layout": "plain"}},
        'source.layout: auto and text: "{document}"', {"source": {"layout": "auto"}},
    ),
}  # fmt: skip


@follows_hint("If the application goes on to embed that, say ", where="embedders/evidence.py")
@pytest.mark.parametrize("what", WRONG_TEXTS)
def test_another_text_than_was_embedded_is_told(tmp_path: Path, what: str) -> None:
    embedded, metadatas, wrong, hint, right = WRONG_TEXTS[what]
    collection(tmp_path, embedded, metadatas)
    ((message, way),) = told(manifest(tmp_path, **wrong))
    assert message.startswith("the text that was embedded is not this text: cosine ")
    assert what in message and "1.00" in message
    assert hint in way
    assert told(manifest(tmp_path, **right)) == []


@follows_hint("Give the model that made them as source.model", where="embedders/evidence.py")
def test_another_model_than_made_the_vectors_is_told(tmp_path: Path) -> None:
    collection(tmp_path, TEXTS, TITLES)
    ((message, way),) = told(manifest(tmp_path, OLD | {"name": "hashed:other"}))
    assert message.startswith(
        "python hashed:other does not make these vectors of these texts: cosine -1.00"
    )
    assert "source.model" in way
    assert told(manifest(tmp_path)) == []


@pytest.mark.parametrize("wrong", ["hashed:new", "hashed:gone"])
def test_an_old_model_that_cannot_be_the_one_is_told_with_what_it_costs(
    tmp_path: Path, wrong: str
) -> None:
    collection(tmp_path, TEXTS, TITLES)
    ((message, way),) = told(manifest(tmp_path, OLD | {"name": wrong}))
    if wrong == "hashed:new":
        assert "the manifest says python hashed:new (64-d), but the vectors have 48" in message
    assert "a rollback cannot embed what was written since" in message
    assert "as source.model, now or later" in way


def test_without_an_old_model_plan_says_so(tmp_path: Path) -> None:
    collection(tmp_path, TEXTS, TITLES)
    ((message, way),) = told(manifest(tmp_path, None))
    assert message.startswith("the old model is unknown") and "Give it as source.model" in way


def test_a_recorded_model_of_other_dimensions_is_told_by_init_and_plan(
    tmp_path: Path, command: Any
) -> None:
    (tmp_path / "hashed.py").write_text(MODEL)
    with chroma(tmp_path / "db") as client:  # as applications do that bring their own vectors
        client.get_or_create_collection("docs").add(
            ids=["a", "b"], documents=["one", "two"],
            embeddings=np.random.default_rng(1).random((2, 192), np.float32),
        )  # fmt: skip
    wrong = "recorded as chroma default (384-d), but the vectors have 192"
    done = command("init", f"chroma:{tmp_path}/db", "-o", tmp_path / "drafted.yaml")
    assert done.code == 0 and wrong in " ".join((done.out + done.err).split())
    drafted = (tmp_path / "drafted.yaml").read_text()
    assert f"# But {wrong}" in drafted
    assert yaml.safe_load(drafted)["source"]["model"] is None
    ((message, _),) = told(manifest(tmp_path, None))
    assert wrong in message
