"""The records that every tool is given, and where they lie: a Chroma folder, or a Postgres table.

Most are plain: 60 words, two values of metadata. The hard ones are such as real collections hold,
each with a name that says what is hard about it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.campaigns.benchmarks.scene import PAGE, texts

DIMENSIONS = 384
LONG = ("information about international development " * 700)[:30_000]
"""30,000 characters, fewer than 8,191 tokens: as long as OpenAI's models take them."""


@dataclass(frozen=True)
class Row:
    """A record before it has a vector."""

    id: str
    document: str | None
    metadata: dict[str, Any] | None


HARD = (
    Row("hard-unicode", "Zu\u0308rich 東京 👩\u200d👧 \u202eRTL\u202c ß İ", {"city": "東京"}),
    Row("hard-lines", "a\tb\r\nc\n\n  d  \u2028e", {"quote": "\"'\\\n;"}),
    Row("hard-long", LONG, {"n": 1}),
    Row("hard-twin-1", "The same text stands in two records.", {"twin": 1}),
    Row("hard-twin-2", "The same text stands in two records.", {"twin": 2}),
    Row("hard-number", "42", {"n": 0}),
    Row("hard-no-metadata", "A record that has no metadata.", None),
    Row("hard-bool", "Truth values.", {"yes": True, "no": False}),
    Row("hard-int", "Whole numbers.", {"big": 2**53 + 1, "negative": -1}),
    Row("hard-float", "Fractions.",
        {"sum": 0.1 + 0.2, "third": 1 / 3, "small": 1e-300, "whole": 2.0}),
    Row("hard-list", "Lists.", {"words": ["a", "b"], "numbers": [1, 2], "flags": [True, False]}),
    Row("hard-blank", "Empty values.", {"blank": "", "n": 0}),
    Row("hard-names", "Keys that tools use.", {"document": "d", "text": "t", "vector": "v"}),
    Row("hard-empty-text", "", {"n": 2}),
    Row("hard-no-document", None, {"n": 3}),
)  # fmt: skip


def rows(records: int, hard: bool) -> Iterator[Row]:
    """So many records, the hard ones spread among the first thousand."""
    special = list(HARD) if hard else []
    written = texts(records)
    for number, text in zip(range(records), written, strict=False):
        if special and number % 60 == 7:
            yield special.pop(0)
        else:
            metadata = {"n": number, "half": number / 2, "topic": f"topic {number % 31}"}
            yield Row(f"id{number}", text, metadata)


def vectors(records: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Those of the old model: `(records, 384) float32`, random."""
    return np.random.default_rng(0).normal(size=(records, DIMENSIONS)).astype(np.float32)


def build_chroma(folder: Path, records: int, hard: bool) -> None:
    """The collection `docs`, cosine."""
    import chromadb

    client = chromadb.PersistentClient(str(folder))
    collection = client.create_collection(
        "docs", embedding_function=None, configuration={"hnsw": {"space": "cosine"}}
    )
    old, start = vectors(records), 0
    # Chroma takes no page in which only some records have a document, or metadata.
    for _, group in itertools.groupby(
        rows(records, hard), key=lambda row: (row.document is None, row.metadata is None)
    ):
        page: Any
        for page in _pages(group):
            collection.add(
                ids=[row.id for row in page],
                documents=None if page[0].document is None else [row.document for row in page],
                metadatas=None if page[0].metadata is None else [row.metadata for row in page],
                embeddings=old[start : start + len(page)],
            )
            start += len(page)


def _pages(group: Iterator[Row]) -> Iterator[tuple[Row, ...]]:
    while page := tuple(itertools.islice(group, PAGE)):
        yield page


def build_postgres(url: str, records: int, hard: bool) -> None:
    """The table `docs` of id, content, metadata and embedding, with an HNSW index."""
    import psycopg
    from pgvector.psycopg import register_vector
    from psycopg.types.json import Jsonb

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        register_vector(connection)
        connection.execute(
            "CREATE TABLE docs (id text PRIMARY KEY, content text, metadata jsonb, "
            f"embedding vector({DIMENSIONS}))".encode()
        )
        query = "COPY docs FROM STDIN (FORMAT BINARY)"
        with connection.cursor() as cursor, cursor.copy(query) as copy:
            copy.set_types(["text", "text", "jsonb", "vector"])
            for row, vector in zip(rows(records, hard), vectors(records), strict=True):
                metadata = None if row.metadata is None else Jsonb(row.metadata)
                copy.write_row((row.id, row.document, metadata, vector))
        connection.execute("CREATE INDEX ON docs USING hnsw (embedding vector_cosine_ops)")
        connection.execute("VACUUM ANALYZE docs")
