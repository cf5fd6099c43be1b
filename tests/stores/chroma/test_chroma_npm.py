"""Chroma's client from npm reads, asks and writes before a move, after it and back again."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import Command
from tests.support.manifests import write_manifest
from tests.support.servers.chroma_server import ChromaServer, chroma_server
from tests.support.texts import sentence, vector_of

CLIENT = Path(__file__).resolve().parents[2] / "versions" / "client.mjs"
MODULES = Path(sys.prefix) / "npm"
NODE = shutil.which("node")
TEXTS = [sentence(number) for number in range(30)]
ADDED = "a text that the application has added"

pytestmark = pytest.mark.skipif(
    NODE is None or not (MODULES / "node_modules").exists(),
    reason="Chroma's client from npm needs Node.js 20 and npm: install them, then `make test`",
)


def ask(operation: str, server: ChromaServer, model: str) -> Any:
    """What the client sees, in a process of its own."""
    vectors = {text: vector_of(model, text).tolist() for text in [*TEXTS, ADDED]}
    if operation == "write":
        del vectors[ADDED]
    done = subprocess.run(
        [str(NODE), str(CLIENT), str(MODULES), operation, "127.0.0.1", str(server.port)],
        input=json.dumps({"vectors": vectors, "text": TEXTS[7], "added": ADDED}),
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_the_client_of_npm_goes_on(tmp_path: Path, command: Command) -> None:
    with chroma_server(tmp_path / "db") as server:
        assert ask("write", server, "old") == {"count": 30}
        before = ask("look", server, "old")
        assert (before["texts"], before["vectors"]) == (["r7", 0], ["r7", 0])
        path = write_manifest(tmp_path, server.url, swap__accept_window=True)
        moved = command("run", path, "--swap", "--json")
        assert moved.code == 0, moved.out + moved.err
        assert ask("look", server, "new") == before
        changed = ask("change", server, "new")
        assert changed == {"found": ["added", "r1"], "count": 30}
        after = ask("look", server, "new")
        assert command("rollback", path, "--yes").code == 0
        assert ask("look", server, "old") == after
