"""A plain Chroma client of any version from 1.0 on: `python -P client.py OPERATION URL [MODEL]`.

It knows nothing of reembed, and prints what it did or saw as one line of JSON. MODEL is a model of
`counting_model.py`, with which the application embeds by itself.
"""

import importlib.util
import json
import sys
from pathlib import Path
from urllib.parse import urlsplit

import chromadb
import numpy as np
from chromadb.api.types import EmbeddingFunction

NAME = "docs"
RECORDS = 60


def models():
    path = Path(__file__).parents[1] / "support" / "cases" / "counting_model.py"
    spec = importlib.util.spec_from_file_location("counting_model", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Own(EmbeddingFunction):  # type: ignore[type-arg]
    """The application's own function, which Chroma does not know."""

    model = "old"

    def __init__(self):
        pass

    def __call__(self, input):
        return [np.asarray(one, np.float32) for one in getattr(models(), self.model)(input)]

    @staticmethod
    def name():
        return "of-the-application"

    def get_config(self):
        return {}

    @staticmethod
    def build_from_config(config):
        return Own()

    def default_space(self):
        return "cosine"

    def supported_spaces(self):
        return ["cosine", "l2", "ip"]


def client_of(url):
    if url.startswith("chroma:"):
        return chromadb.PersistentClient(url.removeprefix("chroma:"))
    parts = urlsplit(url.removeprefix("chroma+"))
    return chromadb.HttpClient(parts.hostname, parts.port)


def text(number):
    return f"text {number} of the application, with the word w{number * 7919}"


def write(client):
    """A collection whose texts the application embeds by itself: no function is recorded."""
    made = client.create_collection(
        NAME,
        embedding_function=None,
        configuration={"hnsw": {"space": "cosine", "ef_search": 50}},
        metadata={"made": "by the application", "n": 3, "f": 0.1},
    )
    texts = [text(number) for number in range(RECORDS)]
    made.add(
        ids=[f"r{number}" for number in range(RECORDS)],
        documents=texts,
        metadatas=[{"n": number, "half": number / 2} for number in range(RECORDS)],
        embeddings=models().old(texts),
    )
    return {"count": made.count()}


def look(client):
    """All there is, the plain way, and what texts find through the application's own function."""
    plain = client.get_collection(NAME)
    told = plain.configuration_json if hasattr(plain, "configuration_json") else {}
    page = plain.get(include=["documents", "metadatas"])
    own = client.get_collection(NAME, embedding_function=Own())
    ids = page["ids"][:20]
    found = own.query(query_texts=[text(int(id[1:])) for id in ids], n_results=1)
    also = client.get_or_create_collection(NAME, embedding_function=None).count()
    return {
        "version": chromadb.__version__,
        "count": [plain.count(), also],
        "records": sorted(zip(page["ids"], page["documents"], page["metadatas"], strict=True)),
        "metadata": plain.metadata,
        "space": (told.get("hnsw") or {}).get("space"),
        "found": [hits[0] for hits in found["ids"]] == ids,
        "names": sorted(one.name for one in client.list_collections()),
        "reembed": "reembed" in sys.modules,
    }


def change(client):
    """What an application goes on writing, through its own function."""
    own = client.get_collection(NAME, embedding_function=Own())
    own.add(ids=["r900"], documents=[text(900)], metadatas=[{"n": 900}])
    own.delete(ids=["r1"])
    return {"count": own.count()}


if __name__ == "__main__":
    operation, url, *model = sys.argv[1:]
    Own.model = model[0] if model else "old"
    print(json.dumps(globals()[operation](client_of(url))))
