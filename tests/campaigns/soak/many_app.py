"""An application with many collections that knows nothing of reembed. It adds, changes and deletes
records, makes and deletes collections, and remembers what it was told is done.

    python -m tests.campaigns.soak.many_app WANTED.json  # looks at every one
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from chromadb.api import ClientAPI
from chromadb.api.models.Collection import Collection
from chromadb.errors import NotFoundError

from tests.support.chroma_data import chroma_at, plain_collection
from tests.support.texts import ROOT, sentence, vector_of

WIDTHS = {48: "old", 64: "new"}
"""Dimensions to the model that has them."""
AT_ONCE = 40
"""Collections that one client opens: it keeps the index of each open, some megabytes each."""

Row = list[Any]
"""Text and metadata of a record."""


@dataclass
class Application:
    """What it wants to find.

    Attributes:
        url: of the store.
        want: name of a collection to its records by id.
        serves: name to the model whose vectors it should have.
        ids: name to the object id that it must have again after a way back.
        pointers: whether names are pointers.
        made: how many records and collections it has made besides.
        spared: collections that it does not write to for now.
    """

    url: str
    want: dict[str, dict[str, Row]] = field(default_factory=dict)
    serves: dict[str, str] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)
    pointers: bool = False
    made: int = 0
    spared: list[str] = field(default_factory=list)

    # What it does

    def build(self, names: Iterable[str], records: int) -> None:
        """Make collections of `records` records, or of 1 to 4 where that is 0."""
        every = list(names)
        for start in range(0, len(every), AT_ONCE):
            with chroma_at(self.url) as client:
                for number, name in enumerate(every[start : start + AT_ONCE], start=start):
                    self._make(client, name, records or 1 + number % 4)

    def _make(self, client: ClientAPI, name: str, count: int) -> None:
        made = plain_collection(client, name, count)
        self.ids[name], self.serves[name] = str(made.id), "old"
        self.want[name] = {
            f"r{n}": [sentence(n), {"title": f"title {n}", "n": n}] for n in range(count)
        }

    def add_to_each(self, names: Iterable[str], id: str) -> None:
        """Add a record to each of these collections."""
        with chroma_at(self.url) as client:
            for name in sorted({*names} - {*self.spared}):
                self._write(client, name, "add", id, f"a text that was added to {name}")

    def go_on(self, chance: random.Random, times: int) -> None:
        """Write to some collections. One whose name leads nowhere, in a rename's gap, is left."""
        with chroma_at(self.url) as client:
            for _ in range(times):
                name = chance.choice(sorted(self.want.keys() - {*self.spared}))
                own = [id for id in self.want[name] if id.startswith("own-")]
                verbs = [
                    "add",
                    *(["change"] if own else []),
                    *(["delete"] if len(own) == 1 else []),
                ]
                verb = chance.choice(verbs)  # what takes most of a small collection is a loss
                self.made += 1
                id = f"own-{self.made}" if verb == "add" else chance.choice(own)
                self._write(client, name, verb, id, f"{verb} {self.made} in {name}\n of its own")

    def _write(self, client: ClientAPI, name: str, verb: str, id: str, text: str) -> None:
        try:
            found = self._open(client, name)
        except NotFoundError:
            return
        if verb == "delete":
            found.delete(ids=[id])
            del self.want[name][id]
            return
        metadata: dict[str, Any] = {"n": self.made, "verb": verb}
        vector = vector_of(WIDTHS[found.get_model().dimension or 48], text)
        write = found.add if verb == "add" else found.update
        write(ids=[id], documents=[text], metadatas=[metadata], embeddings=[vector])
        self.want[name][id] = [text, metadata]

    def delete(self, name: str) -> None:
        """Delete a collection for good."""
        with chroma_at(self.url) as client:
            client.delete_collection(name)
        for known in (self.want, self.serves, self.ids):
            known.pop(name, None)

    def make(self, model: str) -> str:
        """Make a collection, and write a record with this model's vector. Returns its name."""
        self.made += 1
        name, text = f"file-late-{self.made}", f"the text of file {self.made}"
        with chroma_at(self.url) as client:
            made = client.create_collection(
                name, embedding_function=None, configuration={"hnsw": {"space": "cosine"}}
            )
            made.add(ids=["own"], documents=[text], embeddings=[vector_of(model, text)])
        self.want[name], self.serves[name] = {"own": [text, {}]}, model
        self.ids[name] = str(made.id)
        return name

    def _open(self, client: ClientAPI, name: str) -> Collection:
        if self.pointers:
            try:
                pointer = client.get_collection(f"{name}__pointer", embedding_function=None)
            except NotFoundError:
                return client.get_collection(name, embedding_function=None)
            target = (pointer.metadata or {})["target_id"]
            return client.get_collection_by_id(target, embedding_function=None)
        return client.get_collection(name, embedding_function=None)

    # What it finds

    def look(self) -> list[str]:
        """What is not as it should be: records, vectors, and what a search finds."""
        names, wrong = sorted(self.want), list[str]()
        for start in range(0, len(names), AT_ONCE):
            with chroma_at(self.url) as client:
                told = {name: self._wrong(client, name) for name in names[start : start + AT_ONCE]}
            wrong += [f"{name} {what}" for name, what in told.items() if what]
        return wrong

    def looked(self, folder: Path) -> list[str]:
        """As `look`, by a process of its own that knows nothing of reembed."""
        path = folder / "wanted.json"
        path.write_text(json.dumps(asdict(self)))
        done = subprocess.run(
            [sys.executable, "-m", "tests.campaigns.soak.many_app", str(path)],
            text=True, capture_output=True, check=False, cwd=ROOT,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        found: list[str] = json.loads(done.stdout)
        return found

    def _wrong(self, client: ClientAPI, name: str) -> str:
        try:
            found = self._open(client, name)
        except NotFoundError:
            return "leads to nothing"
        want, model = self.want[name], self.serves[name]
        if model == "old" and str(found.id) != self.ids.get(name, str(found.id)):
            return "is not the collection that it was"
        page = found.get(include=["embeddings", "documents", "metadatas"])
        documents, metadatas, vectors = page["documents"], page["metadatas"], page["embeddings"]
        assert documents is not None and metadatas is not None and vectors is not None
        rows = zip(documents, metadatas, strict=True)
        there = {id: [text, dict(metadata or {})] for id, (text, metadata) in
                 zip(page["ids"], rows, strict=True)}  # fmt: skip
        if there != want:
            other = {id for id in there.keys() | want.keys() if there.get(id) != want.get(id)}
            return f"has other records {sorted(other)[:5]}, {len(there)} instead of {len(want)}"
        made = np.stack([vector_of(model, text) for text in documents])
        given = np.asarray(vectors)
        if given.shape != made.shape or np.abs(given - made).max() > 1e-5:
            return f"has vectors {given.shape} that are not of the model {model!r}"
        nearest = found.query(query_embeddings=made[:1], n_results=1)
        if there[nearest["ids"][0][0]][0] != documents[0]:
            return f"does not find {page['ids'][0]!r} by its own vector"
        return ""

    def left(self) -> list[str]:
        """Names that are none of its own."""
        with chroma_at(self.url) as client:
            return sorted(one.name for one in every(client) if one.name not in self.want)


def every(client: ClientAPI) -> Iterator[Collection]:
    """All collections of a store."""
    for offset in range(0, 1_000_000, 300):
        page = client.list_collections(limit=300, offset=offset)
        yield from page
        if len(page) < 300:
            return


def main() -> int:
    """Print what is wrong as JSON."""
    told = Application(**json.loads(Path(sys.argv[1]).read_text())).look()
    assert "reembed" not in sys.modules, "it knows nothing of us"
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main())
