"""What the nights' campaign looks at: a collection, its snapshots, and what plain clients find."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import psycopg
import pyarrow.parquet as pq
from psycopg import sql

from tests.campaigns.soak.processes import apart
from tests.support.chroma_data import chroma
from tests.support.manifests import write_manifest
from tests.support.servers.postgres_server import PostgresServer
from tests.support.texts import sentence, vector_of

RECORDS = 160
DAY = range(1000, 1030)
"""Texts that are written after the last snapshot."""
FOREIGN = range(40, 52)
"""Records that get another model's vectors."""
KEPT = "kept"
RUN_ID = re.compile(r"\d{8}t\d{6}-[0-9a-f]+")

Record = tuple[str, tuple[float, ...]]
Live = dict[str, Record]
"""Id to text and vector, rounded."""
Row = tuple[str, str, Any]
"""Id, text and vector, as they are written."""


def rows_of(numbers: Sequence[int], model: str = "old", word: str = "") -> list[Row]:
    """Records `r<number>` with the vectors that a model gives for their texts."""
    texts = [sentence(number) + word for number in numbers]
    return [(f"r{number}", text, vector_of(model, text))
            for number, text in zip(numbers, texts, strict=True)]  # fmt: skip


def _record(text: str, vector: Any) -> Record:
    return text, tuple(round(float(value), 3) + 0.0 for value in vector)


class Store(Protocol):
    """A store with the collection `docs`, as an application has it."""

    url: str

    def write(self, rows: list[Row]) -> None:
        """Add or overwrite records, in a collection that is made where there is none."""

    def delete(self) -> None:
        """Delete the collection."""

    def live(self) -> Live:
        """What is under the name; nothing where nothing is."""

    def names(self) -> list[str]:
        """Of all collections, with run ids made equal."""

    def keep(self, name: str) -> None:
        """Keep everything as it is now under a name."""

    def restore(self, name: str) -> None:
        """Make everything again as it was kept."""


class InFolder:
    """A Chroma folder. Its index is written to the disk again and again, which Chroma does in
    place, if `often`."""

    def __init__(self, folder: Path, *, often: bool) -> None:
        self.folder = folder
        self.often = often
        self.url = "chroma:db"
        folder.mkdir(parents=True)

    @property
    def _db(self) -> Path:
        return self.folder / "db"

    def write(self, rows: list[Row]) -> None:
        apart(_chroma_write, self._db, rows, self.often)

    def delete(self) -> None:
        apart(_chroma_delete, self._db)

    def live(self) -> Live:
        return apart(_chroma_live, self._db)

    def names(self) -> list[str]:
        return apart(_chroma_names, self._db)

    def keep(self, name: str) -> None:
        shutil.copytree(self.folder, self.folder.with_name(f"kept {name}"))

    def restore(self, name: str) -> None:
        shutil.rmtree(self.folder)
        shutil.copytree(self.folder.with_name(f"kept {name}"), self.folder)


def _chroma_write(db: Path, rows: list[Row], often: bool) -> None:
    ids, texts, vectors = zip(*rows, strict=True)
    index: Any = {"hnsw": {"space": "cosine"}}
    if often:
        index["hnsw"] |= {"sync_threshold": 20, "batch_size": 10}
    with chroma(db) as client:
        names = [one.name for one in client.list_collections()]
        made = (
            client.get_collection("docs", embedding_function=None)
            if "docs" in names
            else client.create_collection("docs", embedding_function=None, configuration=index)
        )
        made.upsert(ids=list(ids), documents=list(texts), embeddings=list(vectors))


def _chroma_delete(db: Path) -> None:
    with chroma(db) as client:
        client.delete_collection("docs")


def _chroma_live(db: Path) -> Live:
    with chroma(db) as client:
        if "docs" not in [one.name for one in client.list_collections()]:
            return {}
        found: Any = client.get_collection("docs", embedding_function=None).get(
            include=["documents", "embeddings"]
        )
    rows = zip(found["ids"], found["documents"], found["embeddings"], strict=True)
    return {id: _record(text, vector) for id, text, vector in rows}


def _chroma_names(db: Path) -> list[str]:
    with chroma(db) as client:
        return sorted(RUN_ID.sub("RUN", one.name) for one in client.list_collections())


class InPostgres:
    """An application's table, in a database that is copied with its oid."""

    def __init__(self, folder: Path, server: PostgresServer) -> None:
        self.folder = folder
        self._server = server
        self._name, self._oid = "nights", 100_100
        self.url = server.url(self._name)
        folder.mkdir(parents=True)
        self._copy(self._name, "with_vector", self._oid)

    def write(self, rows: list[Row]) -> None:
        with psycopg.connect(self.url) as db:
            db.execute(
                "CREATE TABLE IF NOT EXISTS docs (id text PRIMARY KEY, text text, metadata jsonb, "
                "embedding vector(48))"
            )
            db.execute("CREATE INDEX IF NOT EXISTS docs_hnsw ON docs "
                       "USING hnsw (embedding vector_cosine_ops)")  # fmt: skip
            with db.cursor() as cursor:
                cursor.executemany(
                    "INSERT INTO docs VALUES (%s, %s, '{}', %s) ON CONFLICT (id) DO UPDATE "
                    "SET text = excluded.text, embedding = excluded.embedding",
                    [(id, text, str(vector.tolist())) for id, text, vector in rows],
                )

    def delete(self) -> None:
        with psycopg.connect(self.url) as db:
            db.execute("DROP TABLE docs")

    def live(self) -> Live:
        with psycopg.connect(self.url) as db:
            there = db.execute("SELECT to_regclass('docs')").fetchone()
            if there == (None,):
                return {}
            rows = db.execute("SELECT id, text, embedding::text FROM docs").fetchall()
        return {id: _record(text, json.loads(vector)) for id, text, vector in rows}

    def names(self) -> list[str]:
        with psycopg.connect(self.url) as db:
            rows = db.execute(
                "SELECT relkind::text || ' ' || relname FROM pg_class WHERE relnamespace = "
                "'public'::regnamespace"
            ).fetchall()
        return sorted(RUN_ID.sub("RUN", name) for (name,) in rows)

    def keep(self, name: str) -> None:
        shutil.copytree(self.folder, self.folder.with_name(f"kept {name}"))
        self._copy(f"{self._name} {name}", self._name)

    def restore(self, name: str) -> None:
        shutil.rmtree(self.folder)
        shutil.copytree(self.folder.with_name(f"kept {name}"), self.folder)
        self._copy(self._name, f"{self._name} {name}", self._oid)

    def _copy(self, name: str, template: str, oid: int | None = None) -> None:
        try:
            self._server.drop_database(name)
        except psycopg.errors.InternalError_:  # Postgres 18 trips over statistics of the same oid
            self._server.drop_database(name)
        with psycopg.connect(self._server.url(), autocommit=True) as db:
            statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                sql.Identifier(name), sql.Identifier(template)
            )
            db.execute(statement + sql.SQL(f" OID {oid}" if oid else ""))


def good_snapshots(folder: Path) -> dict[str, str]:
    """Each good snapshot with a hash of all that it holds, read as docs/backup.md says: with
    nothing but Parquet and JSON. One of which a file is missing or other bytes fails."""
    return apart(_good_snapshots, folder / KEPT / "docs")


def _good_snapshots(folder: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in sorted((folder / "snapshots").glob("*/manifest.json")):
        manifest = json.loads(path.read_text())
        removed = path.with_name("removed.parquet")
        gone = {
            (row["shard"], row["row"])
            for row in (pq.read_table(removed).to_pylist() if removed.exists() else [])
        }
        lines = list[str]()
        for number, shard in enumerate(manifest["shards"]):
            file = folder / "shards" / f"{shard['sha256']}.parquet"
            assert hashlib.sha256(file.read_bytes()).hexdigest() == shard["sha256"], file
            rows = pq.read_table(file).to_pylist()
            lines += [repr((row["id"], row["document"], row["metadata"], row["embedding"]))
                      for at, row in enumerate(rows) if (number, at) not in gone]  # fmt: skip
        assert len(lines) == manifest["records"], path
        found[path.parent.name] = hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
    return found


def unlike(left: Live, right: Live) -> list[str]:
    """Ids that are not the same in both; vectors may differ by rounding."""
    both = left.keys() & right.keys()
    return sorted(left.keys() ^ right.keys()) + sorted(
        id for id in both
        if left[id][0] != right[id][0]
        or np.abs(np.subtract(left[id][1], right[id][1])).max() > 0.01
    )  # fmt: skip


def manifest_in(folder: Path, url: str) -> None:
    """A manifest of a watch that mends."""
    watch = {"on_empty": "restore", "backups": f"./{KEPT}", "probe": False}
    given = f"chroma:./{url.removeprefix('chroma:')}" if url.startswith("chroma") else url
    write_manifest(folder, given, watch=watch)
