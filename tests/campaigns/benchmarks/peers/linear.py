"""What isotrieve does with the collection: a linear map fitted on 2,000 texts.

    python linear.py CHROMA_FOLDER

Run by the Python of isotrieve's own environment, as its documentation shows it.
"""

from __future__ import annotations

import sys
from typing import Any

import chromadb
import numpy as np
from isotrieve.adapters.chroma import migrate_collection  # type: ignore[import-not-found]
from isotrieve.mapping.linear import RidgeMapping  # type: ignore[import-not-found]
from openai import OpenAI

PAIRS, BATCH = 2000, 256


def main() -> None:
    """Fit on the first texts, and write `docs-moved`."""
    client, model = chromadb.PersistentClient(sys.argv[1]), OpenAI()
    source = client.get_collection("docs", embedding_function=None)
    page: Any = source.get(limit=PAIRS, include=["documents", "embeddings"])
    pairs = [pair for pair in zip(page["documents"], page["embeddings"], strict=True) if pair[0]]
    texts = [text for text, _ in pairs]
    new = [
        one.embedding
        for start in range(0, len(texts), BATCH)
        for one in model.embeddings.create(
            model="text-embedding-3-small", input=texts[start : start + BATCH]
        ).data
    ]
    mapping = RidgeMapping().fit(np.array([old for _, old in pairs]), np.array(new))
    report = migrate_collection(client, "docs", mapping, new_collection="docs-moved")
    print(report)
    sys.exit(bool(report.errors))


main()
