"""The program itself on a Chroma folder, command by command and killed at any moment.

Other stories give commands in the tests' own process, where Chroma's package is imported; the
program opens the folder by Chroma's library alone as long as it can.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import chromadb
import numpy as np
import pytest
import yaml

RECORDS, DIMENSIONS = 300, 24
MODEL = """
import numpy, zlib
def embed(texts):
    return numpy.stack([numpy.random.default_rng(zlib.crc32(text.encode())).standard_normal(24)
                        for text in texts]).astype(numpy.float32)
"""


def call(folder: Path, *words: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "reembed", *words, "m.yaml", "--json"], cwd=folder,
        capture_output=True, text=True, timeout=120, env=os.environ,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def look(folder: Path) -> dict[str, dict[str, Any]]:
    """What an application sees: records by id, of each collection."""
    client = chromadb.PersistentClient(folder / "db")
    seen = {}
    for one in client.list_collections():
        found = client.get_collection(one.name).get(
            include=["documents", "metadatas", "embeddings", "uris"]
        )
        columns = ("documents", "metadatas", "embeddings")
        rows = zip(*(found[name] for name in columns), strict=True)  # type: ignore[literal-required]
        seen[one.name] = dict(zip(found["ids"], rows, strict=True))
    client.close()  # type: ignore[attr-defined]
    return seen


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    client = chromadb.PersistentClient(tmp_path / "db")
    docs = client.create_collection("docs", metadata={"is": "mine"}, embedding_function=None)
    docs.add(
        ids=[f"id{row}" for row in range(RECORDS)],
        documents=[f"text {row}" for row in range(RECORDS)],
        metadatas=[{"n": row, "half": row / 3, "odd": row % 2 == 1} for row in range(RECORDS)],
        embeddings=np.random.default_rng(0)
        .normal(size=(RECORDS, DIMENSIONS + 1))
        .astype(np.float32),
    )
    client.close()  # type: ignore[attr-defined]
    (tmp_path / "own.py").write_text(MODEL)
    manifest = {
        "name": "story", "source": {"url": "chroma:./db", "collection": "docs"},
        "target": {"collection": "docs-new"}, "swap": {"live": "docs"},
        "model": {"provider": "python", "name": "own:embed", "dimensions": DIMENSIONS},
    }  # fmt: skip
    (tmp_path / "m.yaml").write_text(yaml.safe_dump(manifest))
    return tmp_path


def same(ours: dict[str, Any], theirs: dict[str, Any], *, vectors: bool) -> None:
    assert ours.keys() == theirs.keys()
    for id, (document, metadata, vector) in ours.items():
        assert (document, metadata) == theirs[id][:2]
        assert np.array_equal(vector, theirs[id][2]) is vectors


@pytest.mark.long
def test_there_and_back(folder: Path) -> None:
    before = look(folder)["docs"]
    call(folder, "plan")
    call(folder, "run", "--until", "export")
    assert call(folder, "run")["verdict"]["passed"]
    call(folder, "swap", "--yes")
    after = look(folder)
    same(before, after["docs"], vectors=False)
    new = next(vector for _, _, vector in after["docs"].values())
    assert len(new) == DIMENSIONS
    client = chromadb.PersistentClient(folder / "db")
    client.get_collection("docs").delete(ids=["id7"])
    client.close()  # type: ignore[attr-defined]
    call(folder, "rollback", "--yes")
    back = look(folder)["docs"]
    del before["id7"]
    same(before, back, vectors=True)
    call(folder, "clean", "--yes")
    assert look(folder).keys() == {"docs"}


@pytest.mark.long
@pytest.mark.parametrize("seed", range(4))
def test_killed_at_any_moment(folder: Path, seed: int) -> None:
    before, chance = look(folder)["docs"], random.Random(seed)
    for _ in range(6):
        running = subprocess.Popen(
            [sys.executable, "-m", "reembed", "run", "m.yaml", "--swap", "--json"], cwd=folder,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ,
        )  # fmt: skip
        time.sleep(chance.uniform(0.3, 4))
        running.kill()
        running.wait()
    call(folder, "run", "--swap")
    after = look(folder)
    same(before, after["docs"], vectors=False)
    assert not any("lease" in name for name in after)
