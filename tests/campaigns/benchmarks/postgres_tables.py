"""The tables that tests.campaigns.benchmarks.postgres moves: mem0's form, a plain one, and one
whose metadata is spread over columns. Rows are random with a fixed seed: 60 words, some
metadata, 768 dimensions.
"""

from __future__ import annotations

import datetime as dt
import json
import uuid
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg
from pgvector.psycopg import register_vector
from psycopg.types.json import Jsonb

from reembed.records import SHARD_ROWS, Vectors

DIMENSIONS = 768
WORDS = 60
BEGINNING = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True)
class Form:
    """A form of table.

    Attributes:
        columns: name and type of each, in order; the first is the key, the last the vector.
    """

    name: str
    columns: tuple[tuple[str, str], ...]

    @property
    def names(self) -> str:
        return ", ".join(name for name, _ in self.columns)

    @property
    def types(self) -> list[str]:
        """Of the columns, as psycopg's `set_types` takes them."""
        return [type.partition("(")[0] for _, type in self.columns]

    def create(self, connection: psycopg.Connection[Any], name: str) -> None:
        """Make an empty table of this form."""
        (id, type), *rest = self.columns
        columns = ", ".join([f"{id} {type} PRIMARY KEY", *(f"{n} {t}" for n, t in rest)])
        connection.execute(f"CREATE TABLE {name} ({columns})".encode())


FORMS = {
    form.name: form
    for form in (
        Form("mem0", (("id", "uuid"), ("payload", "jsonb"), ("vector", f"vector({DIMENSIONS})"))),
        Form(
            "plain",
            (
                ("id", "bigint"), ("content", "text"), ("metadata", "jsonb"),
                ("embedding", f"vector({DIMENSIONS})"),
            ),
        ),
        Form(
            "composite",
            (
                ("id", "bigint"), ("content", "text"), ("metadata", "jsonb"),
                ("created_at", "timestamptz"), ("score", "float8"), ("tags", "text[]"),
                ("embedding", f"vector({DIMENSIONS})"),
            ),
        ),
    )
}  # fmt: skip


def rows(form: Form, start: int, count: int) -> tuple[list[tuple[Any, ...]], Vectors]:
    """So many rows as psycopg writes them, and their vectors `(count, 768) float32`."""
    generator = np.random.default_rng(start)
    words = ["".join(generator.choice(list("etaoinshrdlu"), 6)) for _ in range(500)]
    texts = [" ".join(words[i] for i in line)
             for line in generator.integers(len(words), size=(count, WORDS))]  # fmt: skip
    vectors = generator.normal(size=(count, DIMENSIONS)).astype(np.float32)
    made: list[tuple[Any, ...]] = []
    for number, text in enumerate(texts, start):
        if form.name == "mem0":
            payload = {
                "data": text, "hash": f"{number:032x}", "user_id": f"user-{number % 97}",
                "created_at": "2026-11-21T17:31:42.000000+00:00",
            }  # fmt: skip
            made.append((uuid.UUID(int=number * 0x9E3779B97F4A7C15 % 2**128), _Text.of(payload)))
            continue
        metadata = _Text.of({"n": number, "half": number / 2, "topic": f"topic {number % 31}"})
        made.append((number, text, metadata))
        if form.name == "composite":
            moment = BEGINNING + dt.timedelta(seconds=61 * number)
            tags = [f"t{number % 7}", f"t{number % 11}"]
            made[-1] += (moment, number / 3, tags)
    return made, vectors


class _Text(Jsonb):
    """JSON text as it stands, so that the peer spends nothing on making it."""

    @classmethod
    def of(cls, value: dict[str, Any]) -> _Text:
        return cls(json.dumps(value), dumps=str)


def write(
    connection: psycopg.Connection[Any], form: Form, name: str,
    batches: list[tuple[list[tuple[Any, ...]], Vectors]],
) -> None:  # fmt: skip
    """COPY BINARY with pgvector's adapter, row by row, in one transaction."""
    register_vector(connection)
    query = f"COPY {name} ({form.names}) FROM STDIN (FORMAT BINARY)".encode()
    with connection.transaction(), connection.cursor() as cursor, cursor.copy(query) as copy:
        copy.set_types(form.types)
        for made, vectors in batches:
            for row, vector in zip(made, vectors, strict=True):
                copy.write_row((*row, vector))


def fill(url: str, form: Form, name: str, count: int) -> None:
    """Make a table of so many rows and let Postgres settle."""
    with psycopg.connect(url, autocommit=True) as connection:
        form.create(connection, name)
        for start in range(0, count, SHARD_ROWS):
            write(connection, form, name, [rows(form, start, min(SHARD_ROWS, count - start))])
        connection.execute(f"VACUUM (ANALYZE, FREEZE) {name}".encode())
        connection.execute("CHECKPOINT")
