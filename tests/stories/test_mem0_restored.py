"""The incident from dump to answered query, by the commands of docs/mem0.md as they stand.

`docker compose exec` runs the command against the tests' server, `cp` copies the history, and
`curl` takes the configuration that it would send; mem0 itself is then opened with that.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from tests.clients.driver import application, needs_clients
from tests.clients.incident import COLLECTION, NAMESPACES, USER, Incident, mem0_config
from tests.support.servers.embedding_server import EmbeddingServer
from tests.support.servers.postgres_server import PostgresServer
from tests.support.texts import ROOT

pytestmark = needs_clients

SECTION = (ROOT / "docs" / "mem0.md").read_text().partition("## From a dump")[2]
SECTION = SECTION.partition("\n## ")[0]
SCOPE = {"user_id": USER, "agent_id": "research"}
DOCKER = """#!/bin/bash
shift  # compose
case $1 in
  exec) shift 3; exec "$@" ;;
  cp) cp "$FAKE/history.db" "$3" ;;
  stop|start) echo "$1 $2" >> "$FAKE/services" ;;
  *) exit 9 ;;
esac
"""
CURL = """#!/bin/bash
for one; do case $one in @*) cp "${one#@}" "$FAKE/configured.json" ;; esac; done
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", SECTION, re.S)


class Host:
    """A machine on which mem0 runs in containers."""

    def __init__(self, server: PostgresServer, folder: Path, names: dict[str, str]) -> None:
        self.folder, self._names = folder, names
        programs = folder / "bin"
        programs.mkdir()
        for name, text in (
            ("docker", DOCKER), ("curl", CURL),
            ("reembed", f'#!/bin/bash\nexec {sys.executable} -m reembed "$@"\n'),
        ):  # fmt: skip
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        path = [str(programs), str(server.program("psql").parent), os.environ["PATH"]]
        self._environment = os.environ | {
            "PATH": os.pathsep.join(path), "PGHOST": str(server.folder), "PGUSER": "postgres",
            "FAKE": str(folder), "PYTHONPATH": str(ROOT), "OPENAI_API_KEY": "sk-of-the-tests",
        }  # fmt: skip

    def named(self, text: str) -> str:
        """Commands with the names of this test's databases."""
        return re.sub(r"-d mem0\b(?!_)|mem0_restored", lambda m: self._names[m[0]], text)

    def run(self, commands: str) -> str:
        done = subprocess.run(
            ["bash", "-e", "-c", self.named(commands)], cwd=self.folder, env=self._environment,
            capture_output=True, text=True, timeout=250, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.mark.long
def test_from_a_dump_to_an_answered_query(
    incident: Incident, postgres: PostgresServer, embedder: EmbeddingServer, tmp_path: Path
) -> None:
    fresh, restored = postgres.new_database(), f"{incident.database}_restored"
    host = Host(postgres, tmp_path, {"-d mem0": f"-d {fresh}", "mem0_restored": restored})
    host.run(f"pg_dump -d {incident.database} --no-owner > mem0.sql")
    history = tmp_path / "history.db"
    history.unlink()  # the container's is new
    with application("mem0_app", tmp_path) as mem0:  # the new server has opened a fresh database
        mem0("open", config=mem0_config(postgres.url(fresh), embedder.url, history, "ollama"))
        late = mem0("add", text="I think Zelda moved to Oslo", **SCOPE)
        mem0("close")
    served = history.with_name("served.db")
    shutil.copy(history, served)

    restore, move, merge = blocks("sh")
    # What the page warns of: psql exits 0 and restores nothing.
    host.run(f"psql -q -d {fresh} < mem0.sql")
    with psycopg.connect(postgres.url(fresh)) as connection:
        assert connection.execute(f"SELECT count(*) FROM {COLLECTION}").fetchone() == (1,)
    restore = restore.replace(" history.db\n", " copied.db\n")
    assert f"{sum(NAMESPACES.values())}" in host.run(restore)
    shutil.move(tmp_path / "copied.db", history)

    url = postgres.url(restored)
    config = mem0_config(url, embedder.url, history, "ollama")
    (tmp_path / "mem0.json").write_text(json.dumps(config))
    manifest: dict[str, Any] = yaml.safe_load(host.named(blocks("yaml")[0]))
    manifest["source"]["url"] = url
    manifest["source"]["model"]["base_url"] = f"{embedder.url}/v1"
    manifest["source"]["model"]["dimensions"] = 1536
    manifest["model"]["base_url"] = embedder.url
    manifest["verify"] = {"sample": 100}
    (tmp_path / "mem0.yaml").write_text(yaml.safe_dump(manifest))
    told = " ".join(host.run(move).split())
    assert "is set to nomic-embed-text already" in told
    assert "knows 1 living memories that memories lacks" in told
    assert (tmp_path / "services").read_text().split() == [
        "stop", "mem0", "stop", "mem0", "start", "mem0",
    ]  # fmt: skip
    host.run(merge)

    configured = json.loads((tmp_path / "configured.json").read_text())
    assert configured["embedder"]["config"]["ollama_base_url"] == embedder.url
    with application("mem0_app", tmp_path) as mem0:
        mem0("open", config=configured)
        found = mem0("get_all", filters=SCOPE, top_k=2000)
        assert len(found) == NAMESPACES["research"] + 1
        (best,) = mem0("search", query="where did Zelda move?", filters=SCOPE, top_k=1)
        assert best["id"] == late
        wanted = mem0("get", id=incident.ids["research"][5])["memory"]
        found = mem0("search", query=wanted, filters=SCOPE, top_k=3)
        assert wanted in {one["memory"] for one in found}
        mem0("close")
    for name in (fresh, restored):
        postgres.drop_database(name)


@pytest.mark.parametrize("block", blocks("sh"))
def test_its_commands_are_commands(block: str) -> None:
    subprocess.run(["bash", "-n", "-c", block], check=True)
