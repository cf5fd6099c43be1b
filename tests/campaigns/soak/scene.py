"""The story that the crash campaign tells again and again: a source, its writers, what is there."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from chromadb.api.models.Collection import Collection

from reembed.embedders.registry import open_embedder
from reembed.manifest import Model
from reembed.run.directory import RunDir
from tests.support.chroma_data import chroma_at, records_of
from tests.support.texts import sentence

RECORDS = 230
MANIFEST = "m.yaml"
NEW_DIMENSIONS, OLD_DIMENSIONS = 96, 64
PREFIX = "new: "
"""Begins the texts of the new model, so that the server's counts tell the models apart."""
BATCH, CONCURRENCY = 8, 2
IN_FLIGHT = BATCH * CONCURRENCY
"""Texts that a kill may cost: no more are at the server at a time."""


@dataclass(frozen=True)
class Step:
    """A command of the story, and what applications write before it.

    Attributes:
        after: the step whose outcome it begins from; "" for the bare source.
        writes: each the collection written to, and the model that embeds the writer's texts.
    """

    name: str
    arguments: tuple[str, ...]
    after: str
    writes: tuple[tuple[str, str], ...] = ()


STEPS = (
    Step("export", ("run", MANIFEST, "--until", "export"), ""),
    Step("embed", ("run", MANIFEST, "--until", "embed"), "export"),
    Step("load", ("run", MANIFEST, "--until", "load"), "embed"),
    Step("verify", ("run", MANIFEST), "load", (("live", "old"),)),
    Step("swap", ("swap", MANIFEST, "--yes"), "verify", (("live", "old"),)),
    Step("sweep", ("sweep", MANIFEST), "swap", (("parked", "old"), ("live", "new"))),
    Step("rollback", ("rollback", MANIFEST, "--yes"), "sweep", (("live", "new"),)),
    Step("sweep back", ("sweep", MANIFEST), "rollback", (("shadow", "new"),)),
    Step("swap again", ("run", MANIFEST, "--swap"), "sweep back", (("live", "old"),)),
    Step("clean", ("clean", MANIFEST, "--yes", "--accept-loss"), "swap again"),
    Step("give up", ("clean", MANIFEST, "--yes", "--accept-loss"), "sweep back"),
    Step("all at once", ("run", MANIFEST, "--swap"), ""),
)


def model(name: str, base_url: str) -> Model:
    """The model `old` or `new`."""
    return Model(
        provider="openai",
        name="wordllama",
        dimensions=OLD_DIMENSIONS if name == "old" else NEW_DIMENSIONS,
        document_prefix=PREFIX if name == "new" else "",
        query_prefix="query: ",
        normalize=True,
        max_tokens=2000,
        base_url=base_url,
        options={"batch_items": BATCH},
    )


def write_manifest(folder: Path, url: str, base_url: str, kind: str, bulk: str = "never") -> None:
    """The migration's manifest."""

    def settings(name: str) -> dict[str, Any]:
        return model(name, base_url).model_dump(exclude_defaults=True)

    data = {
        "name": "soak",
        "source": {"url": url, "collection": "docs", "model": settings("old")},
        "model": settings("new"),
        "target": {"bulk": bulk},
        "embed": {"concurrency": CONCURRENCY},
        "verify": {"sample": 100, "margin": 0.5, "allow_quarantined": 100},
        "swap": {"kind": kind, "accept_window": True, "keep_old": "0d"},
    }
    (folder / MANIFEST).write_text(yaml.safe_dump(data, sort_keys=False))


def build(url: str, base_url: str) -> None:
    """The source: plain records, some without text, some with lists and floats in metadata. Chroma
    is told to write its index often, so that kills hit that too."""
    with chroma_at(url) as client:
        docs = client.create_collection(
            "docs",
            embedding_function=None,
            configuration={"hnsw": {"space": "cosine", "sync_threshold": 60, "batch_size": 20}},
        )
        rows = [
            (f"r{n}", sentence(n), {"n": n, "f": n / 7, "tags": [f"t{n % 3}", "x"]})
            for n in range(RECORDS)
        ]
        _add(docs, rows, "old", base_url)
        docs.add(
            ids=["mute", "blank"],
            documents=["", "  "],
            metadatas=[{"title": "no text"}, {"title": "spaces"}],
            embeddings=_vectors(["mute", "blank"], "old", base_url),
        )


def write(step: Step, url: str, base_url: str) -> None:
    """What applications write before a step: new rows, new texts, new metadata, deletions, one
    deleted row added again with another text."""
    with chroma_at(url) as client:
        for number, (role, which) in enumerate(step.writes):
            found = _role(client, role)
            word = f"{step.name}-{number}"
            chance = random.Random(word)
            ids = sorted(id for id in found.get(include=[])["ids"] if id.startswith("r"))
            chosen = chance.sample(ids, 40)
            text, meta, gone, again = (chosen[part::4] for part in range(4))
            _update(found, [(id, f"record {word} text {id}") for id in text], which, base_url)
            changed: list[Any] = [{"n": 10_000 + len(word)} for _ in meta]
            found.update(ids=meta, metadatas=changed)
            found.delete(ids=gone + again)
            rows: list[Any]
            rows = [(id, f"record {word} again {id}", {"word": word}) for id in again]
            rows += [(f"{word}-{n}", f"record {word} new {n}", {"n": n}) for n in range(12)]
            _add(found, rows, which, base_url)
            if which == "old":  # a row without text has no way back from the new model
                found.add(ids=[f"{word}-mute"], embeddings=_vectors([word], which, base_url))


def _role(client: Any, role: str) -> Collection:
    names = {found.name: str(found.id) for found in client.list_collections()}
    pointer = names.pop("docs__pointer", None)
    parked = next((name for name in names if "__parked-" in name), None)
    shadow = next((name for name in names if name.startswith("docs__wordllama")), None)
    if pointer:
        target = client.get_collection("docs__pointer", embedding_function=None).metadata
        live = next(name for name, id in names.items() if id == target["target_id"])
        others = [name for name in names if name != live]
        chosen = live if role == "live" else others[0]
    else:
        chosen = {"live": "docs", "parked": parked or "", "shadow": shadow or parked or ""}[role]
    found: Collection = client.get_collection(chosen, embedding_function=None)
    return found


def _vectors(texts: list[str], which: str, base_url: str) -> Any:
    with open_embedder(model(which, base_url)) as embedder:
        return embedder.embed_documents(texts).vectors


def _add(docs: Collection, rows: list[Any], which: str, base_url: str) -> None:
    ids, documents, metadatas = zip(*rows, strict=True)
    vectors = _vectors(list(documents), which, base_url)
    docs.add(
        ids=list(ids), documents=list(documents), metadatas=list(metadatas), embeddings=vectors
    )


def _update(docs: Collection, rows: list[tuple[str, str]], which: str, base_url: str) -> None:
    ids, documents = (list(column) for column in zip(*rows, strict=True))
    docs.update(ids=ids, documents=documents, embeddings=_vectors(documents, which, base_url))


# Looking


@dataclass(frozen=True)
class Look:
    """What is in the store and the state directory, with the run's id left out of names.

    Attributes:
        collections: name to the records by id, in Chroma's own words.
        vectors: name to the vectors by id.
        gates: name to status, of the newest verdict.
        state: the run's.
        leftovers: what a finished command must not leave.
        runs: number of run directories.
    """

    collections: dict[str, Any]
    vectors: dict[str, dict[str, Any]]
    gates: dict[str, str]
    leftovers: tuple[str, ...]
    runs: int


def look(folder: Path, url: str) -> Look:
    """Everything that two runs are compared by."""
    id, seen = run_look(folder)
    collections: dict[str, Any] = {}
    vectors: dict[str, dict[str, Any]] = {}
    leftovers = list(seen.leftovers)
    with chroma_at(url) as client:
        for found in client.list_collections():
            found = client.get_collection(found.name, embedding_function=None)
            name = found.name.replace(id, "RUN")
            if "__lease" in name or "__hold" in name:
                leftovers.append(f"{name} in the store")
            if name == "docs__pointer":
                collections[name] = str((found.metadata or {}).get("target")).replace(id, "RUN")
                continue
            collections[name] = records_of(found)
            page = found.get(include=["embeddings"])
            assert page["embeddings"] is not None
            rows = np.asarray(page["embeddings"], np.float32)
            vectors[name] = dict(zip(page["ids"], rows, strict=True))
            if len(rows):  # the index answers, and knows every record
                near = found.query(query_embeddings=rows[:1], n_results=found.count(), include=[])
                if len(near["ids"][0]) != found.count():
                    vectors[name]["index answers"] = np.full(2, len(near["ids"][0]), np.float32)
    return Look(collections, vectors, seen.gates, tuple(leftovers), seen.runs)


def run_look(folder: Path) -> tuple[str, Look]:
    """The newest run's id, and what is in the state directory."""
    state = folder / ".reembed" / "soak"
    run = RunDir.latest(state)
    verdict = run.path / "verdict.json" if run else folder / "none"
    gates = json.loads(verdict.read_text())["gates"] if verdict.exists() else []
    leftovers = [str(path.relative_to(folder)) for path in state.rglob("*.tmp")]
    lease = state / "lease"
    if lease.exists() and lease.stat().st_size:
        leftovers.append(f"lease of {lease.read_text().strip()}")
    return run.run_id if run else "?", Look(
        {},
        {},
        {gate["name"]: gate["status"] for gate in gates},
        tuple(leftovers),
        sum(path.is_dir() for path in state.iterdir()) if state.is_dir() else 0,
    )


def differences(want: Look, got: Look) -> list[str]:
    """What is not the same, in words."""
    found = [f"left behind: {', '.join(got.leftovers)}"] if got.leftovers else []
    if want.collections.keys() != got.collections.keys():
        found.append(f"collections {sorted(got.collections)}, not {sorted(want.collections)}")
    for name in want.collections.keys() & got.collections.keys():
        found += _compare(name, want.collections[name], got.collections[name], lambda a, b: a == b)
    for name in want.vectors.keys() & got.vectors.keys():
        found += _compare(f"vectors of {name}", want.vectors[name], got.vectors[name], _near)
    if want.gates != got.gates:
        found.append(f"gates {got.gates}, not {want.gates}")
    if want.runs != got.runs:
        found.append(f"{got.runs} run directories, not {want.runs}")
    return found


def _near(a: Any, b: Any) -> bool:
    return a.shape == b.shape and float(a @ b) > 0.99999 * float(
        np.linalg.norm(a) * np.linalg.norm(b)
    )


def _compare(name: str, want: Any, got: Any, same: Callable[[Any, Any], bool]) -> list[str]:
    if isinstance(want, str):
        return [] if want == got else [f"{name}: {got}, not {want}"]
    kinds = {
        "lost": sorted(want.keys() - got.keys()),
        "too many": sorted(got.keys() - want.keys()),
        "altered": sorted(id for id in want.keys() & got.keys() if not same(want[id], got[id])),
    }
    return [f"{name}: {len(ids)} {kind}, e.g. {ids[:3]}" for kind, ids in kinds.items() if ids]
