"""Chroma databases for the tests of the Chroma adapter."""

from __future__ import annotations

import json
import socket
import sqlite3
import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import chromadb
import numpy as np
from chromadb.config import Settings

from tests.support.chroma_data import chroma

CASES = Path(__file__).with_name("cases")


def new_chroma_folder(folder: Path) -> Path:
    """An empty database, as an application's first run leaves it."""
    client = chromadb.PersistentClient(folder, Settings(anonymized_telemetry=False))
    client.close()  # type: ignore[attr-defined]
    return folder


def chroma_0_5(folder: Path) -> Path:
    """The database that Chroma 0.5.23 made, not upgraded."""
    with tarfile.open(CASES / "chroma-0.5.23.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "chroma"


def upgraded_0_5(folder: Path) -> Path:
    """The same, upgraded as the refusal says: a copy, opened once by the installed Chroma."""
    made = chroma_0_5(folder)
    with chroma(made):
        pass
    return made


def tables(folder: Path) -> dict[str, list[Any]]:
    """All rows of chroma.sqlite3, but for Chroma's own lock, which every opening takes."""
    connection = sqlite3.connect(f"file:{folder}/chroma.sqlite3?mode=ro", uri=True)
    try:
        names = [
            row[0]
            for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            if row[0] != "acquire_write"
        ]
        return {name: connection.execute(f'SELECT * FROM "{name}"').fetchall() for name in names}
    finally:
        connection.close()


def lose_vectors(folder: Path, collection_id: str, ids: list[str]) -> None:
    """Make records whose vector is in no index, as chroma issue 2912 describes them."""
    connection = sqlite3.connect(folder / "chroma.sqlite3", timeout=30)
    for id in ids:
        connection.execute(
            "INSERT INTO embeddings (segment_id, embedding_id, seq_id) SELECT s.id, ?, 1 "
            "FROM segments s WHERE s.collection = ? AND s.scope = 'METADATA'",
            (id, collection_id),
        )
        connection.execute(
            "INSERT INTO embedding_metadata (id, key, string_value) "
            "VALUES (last_insert_rowid(), 'chroma:document', ?)",
            (f"text of {id}",),
        )
    connection.commit()
    connection.close()


def points(*rows: list[float]) -> Any:
    """`(n, d) float32`."""
    return np.array(rows, np.float32)


class RecordingServer:
    """Answers like Chroma's server for as far as opening a client goes; records all requests."""

    def __init__(self, status: int = 200, page: bytes | None = None) -> None:
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        recording = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                recording.requests.append(
                    ("GET", self.path, {k.lower(): v for k, v in self.headers.items()})
                )
                body = page or json.dumps(recording.answer(self.path)).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def answer(self, path: str) -> Any:
        if path.endswith("/auth/identity"):
            return {"user_id": "u", "tenant": "acme", "databases": ["prod"]}
        if path.endswith("/heartbeat"):
            return {"nanosecond heartbeat": 1}
        if path.endswith("/pre-flight-checks"):
            return {"max_batch_size": 300}
        if "/collections" in path:
            return []
        return {"name": "x", "id": "00000000-0000-0000-0000-000000000000", "tenant": "acme"}

    def __enter__(self) -> RecordingServer:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def silent_server() -> Iterator[int]:
    """A port that accepts connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)
        yield int(listener.getsockname()[1])


PYTHON = sys.executable
