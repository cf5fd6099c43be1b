"""No command reads or writes a collection, or asks a model, without saying what it is at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reembed import Manifest, Migration
from reembed.embedders.sending.sender import Sender
from reembed.progress import Stand, Tracked
from reembed.stores.collection import Collection
from tests.support.chroma_data import chroma, plain_collection
from tests.support.commands import REEMBED, Calls
from tests.support.manifests import write_manifest


class Recorder(Tracked):
    """Keeps which stages there were."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def ended(self, stand: Stand) -> None:
        self.seen.append(stand.stage)


def said(recorder: Recorder) -> bool:
    """Whether a stage is open. One that threads begin early is said once its turn has come, which a
    caller that waits for them in silence never does."""
    deadline = time.monotonic() + 5
    while not recorder.stands():
        if threading.current_thread() is threading.main_thread() or time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    """Notes what was done in silence as a stage of its own."""
    recorder = Recorder()

    def watched(owner: type, name: str) -> None:
        kept = getattr(owner, name)

        def call(self: Any, *arguments: Any, **options: Any) -> Any:
            if not said(recorder):
                frame = sys._getframe(1)
                recorder.seen.append(f"SILENT {owner.__name__}.{name} in {frame.f_code.co_name}")
            return kept(self, *arguments, **options)

        monkeypatch.setattr(owner, name, call)

    for name in ("list_ids", "fetch", "fetch_page", "query", "write", "delete"):
        watched(Collection, name)
    watched(Sender, "request")
    yield recorder


def test_nothing_long_happens_in_silence(tmp_path: Path, recorder: Recorder):
    database = tmp_path / "db"
    with chroma(database) as client:
        plain_collection(client)
    path = write_manifest(tmp_path, f"chroma:{database}")
    moving = Migration(Manifest.load(path), recorder)
    moving.plan()
    assert moving.run().exit_code == 0
    moving.verify()
    assert moving.swap().done
    with chroma(database) as client:
        client.get_collection("docs").delete(ids=["r3"])
    moving.sweep()
    moving.verify()
    assert moving.rollback().done
    moving.sweep()
    moving.status()
    assert moving.clean().done
    assert not [name for name in recorder.seen if name.startswith("SILENT")]
    assert {"list the records", "export", "embed", "load", "verify", "verify: search",
            "move the live name", "carry back", "write the report"} <= {*recorder.seen}  # fmt: skip


def test_status_tells_from_another_terminal_how_far_a_run_is(tmp_path: Path, calls: Calls):
    database = tmp_path / "db"
    with chroma(database) as client:
        plain_collection(client, count=600)
    options: Any = {"model__options": {"batch_items": 8}, "embed__concurrency": 1}
    path = write_manifest(tmp_path, f"chroma:{database}", **options)
    environment = os.environ | {"REEMBED_TEST_SECONDS": "0.3"}
    with subprocess.Popen(
        [*REEMBED, "run", str(path), "--json"], env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as running:  # fmt: skip
        try:
            deadline = time.monotonic() + 120
            found: dict[str, Any] = {}
            while not any(one["stage"] == "embed" and one["done"] > 0
                          for one in (found.get("now") or {}).get("stages", ())):  # fmt: skip
                assert time.monotonic() < deadline
                found = _status(path)
        finally:
            running.kill()
    assert f"pid {running.pid}" in found["now"]["holder"]
    shards = {one["stage"]: (one["done"], one["shards"]) for one in found["stages"]}
    assert shards == {"export": (1, 1), "embed": (0, 1), "load": (0, 1)}
    embed = next(one for one in found["now"]["stages"] if one["stage"] == "embed")
    assert 0 < embed["done"] < embed["total"] == 600
    after = _status(path)
    assert after["now"] is None, "a process that was killed is at nothing"
    assert after["stages"], "what its journal tells stays"


def _status(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        json.dumps(Migration(Manifest.load(path)).status().to_dict())
    )
    return found
