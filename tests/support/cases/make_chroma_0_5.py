"""Makes chroma-0.5.23.tar.gz, a database as Chroma 0.5 left it. Run with that version:

    uv venv --python 3.11 old && uv pip install --python old chromadb==0.5.23 "numpy<2"
    old/bin/python tests/support/cases/make_chroma_0_5.py

Its collections claim l2 in their configuration, which 0.5 never read; the truth is in the metadata
of their segments. Vectors have length one, and `created` holds floats as time.time() gives them.
"""

import random
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import chromadb
from chromadb.config import Settings

SETTINGS: dict[str, Any] = {
    "really-cosine": {
        "hnsw:space": "cosine", "hnsw:construction_ef": 64, "hnsw:M": 12, "topic": "x",
    },
    "really-ip": {"hnsw:space": "ip"},
    "really-l2": None,
    "empty-cosine": {"hnsw:space": "cosine"},
}  # fmt: skip


def main():
    target = Path(__file__).with_name("chroma-0.5.23.tar.gz")
    chance = random.Random(5)
    with tempfile.TemporaryDirectory() as folder:
        client = chromadb.PersistentClient(folder, Settings(anonymized_telemetry=False))
        for name, metadata in SETTINGS.items():
            collection = client.create_collection(name, metadata=metadata, embedding_function=None)
            count = 0 if name.startswith("empty") else 40
            if count:
                collection.add(
                    ids=[f"{name}-{i}" for i in range(count)],
                    embeddings=[direction(chance) for _ in range(count)],
                    documents=[f"text {i}" for i in range(count)],
                    metadatas=[
                        {"created": 1.7e9 + chance.random() * 1e8, "i": i, "ok": i % 2 == 0}
                        for i in range(count)
                    ],
                )
        with tarfile.open(target, "w:gz") as archive:
            archive.add(folder, arcname="chroma")


def direction(chance):
    vector = [chance.gauss(0, 1) for _ in range(8)]
    length = sum(value * value for value in vector) ** 0.5
    return [value / length for value in vector]


if __name__ == "__main__":
    main()
