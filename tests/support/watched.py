"""A scene that watches look at, once each when something else is wrong, and the metrics that they
wrote."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Self
from unittest import mock

import numpy as np
from chromadb.api import ClientAPI

from reembed.backup.commands import backup
from reembed.backup.directory import snapshots
from reembed.backup.snapshot import DRILL, Drill
from reembed.backup.take import Wanted
from reembed.commands.watch import subject_of, watch
from reembed.progress import Progress
from reembed.run.disk import write_atomic
from reembed.stores.chroma import recording
from tests.support.chroma_data import chroma, plain_collection
from tests.support.manifests import migration, write_manifest
from tests.support.servers.embedding_server import NATIVE, OLLAMA, EmbeddingServer
from tests.support.texts import sentence


def recorded_collection(client: ClientAPI, provider: str, model: str) -> None:
    """The collection `recorded`: a model is on record that did not make its vectors."""
    with recording.recording():
        function = recording._Record.of("reembed", {"provider": provider, "name": model})
        made = client.create_collection("recorded", embedding_function=function)
    made.add(
        ids=[str(number) for number in range(9)],
        documents=[sentence(number) for number in range(9)],
        embeddings=np.eye(9, NATIVE, dtype=np.float32),
    )  # fmt: skip


class Looks:
    """What was written: `well`, `drop`, `gone`, `drift`, `away`, `stuck`.

    Attributes:
        begin: when the first look was made, seconds since the epoch.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = folder / "db"
        self.file = folder / "reembed.prom"
        self.written: dict[str, str] = {}
        self.begin = 0.0
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Self:
        server = self._open.enter_context(EmbeddingServer(OLLAMA))
        with chroma(self.database) as client:
            plain_collection(client)
        self.path = write_manifest(
            self.folder, f"chroma:{self.database}",
            model={"provider": "ollama", "name": "nomic-embed-text", "base_url": server.url},
            watch={
                "metrics": "reembed.prom", "backups": "backups", "backup_age": "99w",
                "drill_age": "99w",  # the rules have their own
            },
        )  # fmt: skip
        backups = self.folder / "backups"
        backup(str(self.path), directory=backups, wanted=Wanted(), progress=Progress())
        (taken,) = snapshots(backups)
        drill = Drill(time.time(), passed=True)
        write_atomic(taken.path / DRILL.name, json.dumps(drill.to_dict()).encode())
        self.begin = time.time()
        self._look("well")
        server.shift = 0.4
        self._look("drift")
        server.shift = 0.0
        migration(self.path).run(until="embed")
        with mock.patch("time.time", lambda: self.begin + 3 * 86_400):
            self._look("stuck")
        with chroma(self.database) as client:
            client.get_collection("docs").delete(ids=[f"r{number}" for number in range(30)])
        self._look("drop")
        with chroma(self.database) as client:
            client.delete_collection("docs")
        self._look("gone")
        self.database.rename(self.database.with_name("away"))
        self._look("away")
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def _look(self, name: str) -> None:
        watch(subject_of(str(self.path)))
        self.written[name] = self.file.read_text()
