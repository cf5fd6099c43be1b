"""The script that one would write: every page by `get`, four threads that ask, one `add` a page.

    python script.py CHROMA_FOLDER

It is the peer that loses nothing. It checks nothing, and begins anew after a kill.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import chromadb
import numpy as np

URL, BATCH, PAGE = os.environ["OPENAI_BASE_URL"], 256, 1000


def ask(texts: list[str]) -> list[Any]:
    body = {"model": "text-embedding-3-small", "input": texts, "encoding_format": "base64"}
    headers = {"Content-Type": "application/json", "Authorization": "Bearer none"}
    request = urllib.request.Request(f"{URL}/embeddings", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request) as answer:
        data = json.load(answer)["data"]
    return [np.frombuffer(base64.b64decode(one["embedding"]), np.float32) for one in data]


def main() -> None:
    """Copy `docs` to `docs-moved`."""
    client = chromadb.PersistentClient(sys.argv[1])
    source = client.get_collection("docs", embedding_function=None)
    if "docs-moved" in [each.name for each in client.list_collections()]:
        client.delete_collection("docs-moved")
    configuration: Any = source.configuration_json
    target = client.create_collection(
        "docs-moved", embedding_function=None, configuration=configuration
    )
    left_out = 0
    with ThreadPoolExecutor(4) as threads:
        for offset in range(0, source.count(), PAGE):
            page: Any = source.get(limit=PAGE, offset=offset, include=["documents", "metadatas"])
            every = zip(page["ids"], page["documents"], page["metadatas"], strict=True)
            rows = [row for row in every if row[1]]
            left_out += len(page["ids"]) - len(rows)
            texts = [document for _, document, _ in rows]
            batches = [texts[start : start + BATCH] for start in range(0, len(texts), BATCH)]
            vectors = [vector for some in threads.map(ask, batches) for vector in some]
            ids, documents, metadatas = zip(*rows, strict=True)
            target.add(list(ids), vectors, list(metadatas), list(documents))
    if left_out:
        print(f"{left_out} records without text were left out")


main()
