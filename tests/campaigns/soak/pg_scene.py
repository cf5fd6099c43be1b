"""The story of `scene.py` on a table in Postgres: its writers, and what is there."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from psycopg import sql

from reembed.embedders.registry import open_embedder
from tests.campaigns.soak.scene import OLD_DIMENSIONS, RECORDS, Look, Step, model, run_look
from tests.support.pg_docs import catalog
from tests.support.texts import sentence

HANGING = "CREATE VIEW titles AS SELECT id, content FROM docs"
"""Makes the table keep its place, and exchange columns."""
Row = tuple[str, str | None, dict[str, Any]]


def build(url: str, base_url: str, way: str) -> None:
    """The source: plain records, some without text.

    Args:
        way: `rename` or `columns`: which one the swap will take.
    """
    rows: list[Row] = [(f"r{n}", sentence(n), {"n": n, "f": n / 7}) for n in range(RECORDS)]
    rows += [("mute", None, {"title": "no text"}), ("blank", "  ", {"title": "spaces"})]
    with psycopg.connect(url) as connection:
        connection.execute(
            "CREATE TABLE docs (id text PRIMARY KEY, content text, meta jsonb, embedding "
            f"vector({OLD_DIMENSIONS}))"
        )
        _add(connection, "docs", rows, "old", base_url)
        connection.execute("CREATE INDEX ON docs USING gin (meta)")
        connection.execute("CREATE INDEX ON docs USING hnsw (embedding vector_cosine_ops)")
        if way == "columns":
            connection.execute(HANGING)


def write(step: Step, url: str, base_url: str) -> None:
    """What applications write before a step: new rows, new texts, new metadata, deletions, one
    deleted row added again with another text, keys changed."""
    with psycopg.connect(url) as connection:
        for number, (role, which) in enumerate(step.writes):
            table = _role(connection, role)
            name = sql.Identifier(table)
            word = f"{step.name}-{number}"
            chance = random.Random(word)
            found = connection.execute(sql.SQL("SELECT id FROM {} ORDER BY id").format(name))
            ids = [id for (id,) in found.fetchall() if id.startswith("r")]
            text, meta, gone, again, keys = (
                part for part in _parts(chance.sample(ids, 50), 5)
            )  # fmt: skip
            texts = [f"record {word} text {id}" for id in text]
            rewrite = sql.SQL("UPDATE {} SET content = %s, embedding = %s WHERE id = %s")
            for id, new, vector in zip(text, texts, _vectors(texts, which, base_url), strict=True):
                connection.execute(rewrite.format(name), [new, vector, id])
            change = sql.SQL("UPDATE {} SET meta = %s WHERE id = ANY (%s)").format(name)
            connection.execute(change, [json.dumps({"n": 10_000 + len(word)}), meta])
            delete = sql.SQL("DELETE FROM {} WHERE id = ANY (%s)").format(name)
            connection.execute(delete, [gone + again])
            rekey = sql.SQL("UPDATE {} SET id = 'rekeyed-' || id WHERE id = ANY (%s)").format(name)
            connection.execute(rekey, [keys])
            rows: list[Row]
            rows = [(id, f"record {word} again {id}", {"word": word}) for id in again]
            rows += [(f"{word}-{n}", f"record {word} new {n}", {"n": n}) for n in range(12)]
            if which == "old":  # a row without text has no way back from the new model
                rows.append((f"{word}-mute", None, {}))
            _add(connection, table, rows, which, base_url)


def _parts(ids: list[str], count: int) -> list[list[str]]:
    return [ids[part::count] for part in range(count)]


def _role(connection: psycopg.Connection[Any], role: str) -> str:
    rows = connection.execute(
        "SELECT relname FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid WHERE relkind = "
        "'r' AND attname = 'embedding'"
    ).fetchall()
    others = [name for (name,) in rows if name != "docs"]
    return "docs" if role == "live" else str(others[0])


def _vectors(texts: list[str], which: str, base_url: str) -> list[str]:
    with open_embedder(model(which, base_url)) as embedder:
        vectors = embedder.embed_documents(texts).vectors
    return ["[" + ",".join(map(repr, vector.tolist())) + "]" for vector in vectors]


def _add(
    connection: psycopg.Connection[Any], table: str, rows: list[Row], which: str, base_url: str
) -> None:
    texts = [text if text and text.strip() else id for id, text, _ in rows]
    with connection.cursor() as cursor:
        cursor.executemany(
            sql.SQL("INSERT INTO {} (id, content, meta, embedding) VALUES (%s, %s, %s, %s)").format(
                sql.Identifier(table)
            ),
            [
                (id, text, json.dumps(meta), vector)
                for (id, text, meta), vector in zip(
                    rows, _vectors(texts, which, base_url), strict=True
                )
            ],
        )


# Looking


def look(folder: Path, url: str) -> Look:
    """Everything that two runs are compared by; the catalog, too."""
    id, seen = run_look(folder)
    collections: dict[str, Any] = {
        kind: dict.fromkeys(re.sub(r"reembed_\d+", "reembed_N", line.replace(id, "RUN"))
                            for line in lines)
        for kind, lines in catalog(url).items()
    }  # fmt: skip
    vectors: dict[str, dict[str, Any]] = {}
    with psycopg.connect(url) as connection:
        for table in {"docs", _role(connection, "parked") if _others(connection) else "docs"}:
            rows = connection.execute(
                sql.SQL("SELECT id, content, meta::text, embedding::text FROM {}").format(
                    sql.Identifier(table)
                )
            ).fetchall()
            name = table.replace(id, "RUN")
            collections[name] = {row[0]: row[1:3] for row in rows}
            vectors[name] = {
                row[0]: np.asarray(json.loads(row[3] or "[1]"), np.float32) for row in rows
            }
    return Look(collections, vectors, seen.gates, seen.leftovers, seen.runs)


def _others(connection: psycopg.Connection[Any]) -> bool:
    row = connection.execute(
        "SELECT 1 FROM pg_class WHERE relkind = 'r' AND relname LIKE 'docs\\_\\_%'"
    ).fetchone()
    return row is not None
