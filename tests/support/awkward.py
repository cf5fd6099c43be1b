"""A collection of records as unlike each other as Chroma takes them."""

from __future__ import annotations

import os
import random
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, cast

from chromadb.api import ClientAPI
from chromadb.api.models.Collection import Collection

from tests.support.texts import sentence, vector_of

NORMAL = int(os.environ.get("REEMBED_TEST_RECORDS", "600"))
"""Records of the end-to-end collection; 5000 in a thorough run."""


SPECIAL: list[tuple[str, str | None, dict[str, Any] | None, str | None]] = [
    ("null document", None, {"title": "no document"}, None),
    ("empty document", "", {"title": "an empty document"}, None),
    ("uri only", None, None, "file:///a b/ü.txt"),
    ("no metadata", "a text without metadata", None, None),
    ("nothing at all", None, None, None),
    ("blank document", " \n\t ", None, ""),
    ("types", "every type", {"s": "x", "i": 1, "f": 1.0, "b": True, "n": 0, "e": "", "no": False},
     "u"),
    ("lists", "every list", {"s": ["b", "a", ""], "i": [2, 1], "f": [0.5, 1.0, 2.5e-300],
     "b": [True, False]}, None),
    ("int64", "long integers", {"most": 2**63 - 1, "least": -(2**63), "odd": 2**53 + 1}, None),
    ("floats", "floats", {"a": 1e300, "b": 1e-300, "c": 0.1, "d": 1.7976931348623157e308,
     "e": 5e-324, "f": 2.2250738585072014e-308, "g": -123456789.123456789, "h": 1e16}, None),
    ("keys", "odd keys", {"a b": 1, "ünï": 2, "a.b": "x", " ": "blank", "k" * 300: 1}, "u"),
    ("ünïcödé ☃ 𝄞 \u202e rtl", "日本語 \r\n tab\t 🤖", {"é": "e\u0301"}, "u\u00e9"),
    ("line\nbreak", "text with a line\nbreak and 'quotes' \"of\" both kinds", None, None),
    ("'; DROP TABLE embeddings; --", 'quotes " and \\ backslash', {"a": "' OR 1=1"}, None),
    ("%s {} {0} ${HOME} ../../etc/passwd", "braces {document} {metadata.title} {{}}", None, None),
    (" leading and trailing ", " text ", None, " uri "),
    ("x" * 4_000, "a long id", None, None),
    ("long document", "word " * 30_000, {"text": "y" * 20_000}, None),
    ("0", "looks like a number", None, None),
    ("NULL", "looks like nothing", {"none": "None", "null": "null"}, None),
    ("Case", "case matters", None, None),
    ("case", "in ids", None, None),
]  # fmt: skip


LOST = "lost vector"


COLLECTION_METADATA = {"owner": "tests", "count": 3, "share": 0.1, "on": True, "ü": "é'\""}


HNSW: Any = {"space": "cosine", "ef_construction": 120, "max_neighbors": 20, "ef_search": 110}


def awkward_collection(client: ClientAPI, name: str, count: int) -> Collection:
    """Every record of SPECIAL and plain ones up to `count`, embedded by the model `old`."""
    made = client.create_collection(
        name,
        embedding_function=None,
        configuration=cast(Any, {"hnsw": HNSW}),
        metadata=COLLECTION_METADATA,
    )
    chance = random.Random(7)
    rows = list(SPECIAL)
    for number in range(count - len(rows) - 1):
        metadata: dict[str, Any] = {"title": f"title {number}", "at": 1.7e9 + chance.random() * 1e8}
        rows.append(
            (f"r{number}", sentence(number // 2 if number < 40 else number), metadata, None)
        )
    for start in range(0, len(rows), 500):
        part = rows[start : start + 500]
        ids, documents, metadatas, uris = zip(*part, strict=True)
        made.add(
            ids=list(ids), documents=list(documents), metadatas=list(metadatas), uris=list(uris),
            embeddings=[vector_of("old", (text or id)[:500]) for id, text, *_ in part],
        )  # fmt: skip
    return made


def lose_vector(folder: Path, collection_id: str, document: str = "its vector is lost") -> None:
    """Leave a record as a crash of Chroma does (#2912): there, but without its vector."""
    with closing(sqlite3.connect(folder / "chroma.sqlite3")) as db, db:
        (segment,) = db.execute(
            "SELECT id FROM segments WHERE collection = ? AND scope = 'METADATA'", (collection_id,)
        ).fetchone()
        (last,) = db.execute("SELECT max(seq_id) FROM embeddings").fetchone()
        row = db.execute(
            "INSERT INTO embeddings (segment_id, embedding_id, seq_id) VALUES (?, ?, ?)",
            (segment, LOST, last),
        ).lastrowid
        db.execute(
            "INSERT INTO embedding_metadata (id, key, string_value) "
            "VALUES (?, 'chroma:document', ?), (?, 'title', 'lost')",
            (row, document, row),
        )
