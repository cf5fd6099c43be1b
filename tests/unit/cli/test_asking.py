"""`reembed init` in a terminal asks for what is not given; elsewhere it never asks."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from reembed.commands.nearby import Found, models_in_reach, stores_nearby
from reembed.manifest import Manifest, Model
from tests.support.chroma_data import chroma, plain_collection
from tests.support.commands import Command, tree
from tests.support.following import follows_hint
from tests.support.servers.embedding_server import OLLAMA, EmbeddingServer

IN_TERMINAL = (
    "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    "from reembed.cli.entry import main; main()"
)
UP, DOWN, ENTER, CTRL_C = "\x1b[A", "\x1b[B", "\r", "\x03"
DEADLINE = 120.0
"""Seconds."""
Step = tuple[str, str]
"""Words to wait for, and what is typed then."""


def in_terminal(folder: Path, arguments: Sequence[str], steps: Sequence[Step]) -> tuple[int, str]:
    """The exit code of `reembed` in a pseudo-terminal of its own, and all that was seen there."""
    person, program = os.openpty()
    variables = {**os.environ, "TERM": "xterm", "OLLAMA_HOST": "127.0.0.1:9"}
    process = subprocess.Popen(
        [sys.executable, "-c", IN_TERMINAL, *arguments], cwd=folder, stdin=program,
        stdout=program, stderr=program, start_new_session=True, env=variables,
    )  # fmt: skip
    os.close(program)
    try:
        seen = ""
        for words, keys in steps:
            seen += _until(person, words)
            os.write(person, keys.encode())
        seen += _until(person, None)
        return process.wait(DEADLINE), seen
    finally:
        process.kill()
        process.wait()
        os.close(person)


def _until(person: int, words: str | None) -> str:
    """What is seen until some words are, or until the program has gone."""
    seen, end = b"", time.monotonic() + DEADLINE
    while words is None or words.encode() not in seen:
        assert time.monotonic() < end, f"waited for {words}: {seen!r}"
        if select.select([person], [], [], 1.0)[0]:
            try:
                piece = os.read(person, 65_536)
            except OSError:  # so Linux says that nobody has the other end
                piece = b""
            assert piece or words is None, f"it ended before {words}: {seen!r}"
            if not piece:
                break
            seen += piece
    return seen.decode(errors="replace")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with a database of two collections."""
    with chroma(tmp_path / "data" / "db") as client:
        plain_collection(client, "docs", 20)
        plain_collection(client, "more", 3)
    return tmp_path


def test_arrow_keys_lead_to_a_manifest(home: Path) -> None:
    code, seen = in_terminal(home, ["init"], [
        ("> 1. chroma:./data/db", ENTER),
        ("> 1. docs", DOWN),
        ("> 2. more", ENTER),
        ("new model (", UP + ENTER),
        ("another as PROVIDER:NAME: ", "python:counting_model:new" + ENTER),
        ("file to write [move.yaml]: ", ENTER),
    ])  # fmt: skip
    assert code == 0, seen
    assert "docs (20 records)" in seen and "more (3 records)" in seen
    assert "reembed plan move.yaml" in seen
    manifest = Manifest.load(home / "move.yaml")
    assert manifest.source.collection == "more"
    assert manifest.source.url == f"chroma:{home / 'data' / 'db'}"
    assert isinstance(manifest.model, Model) and manifest.model.name == "counting_model:new"


def test_whoever_leaves_has_nothing_written(home: Path) -> None:
    before = {*tree(home)}
    code, seen = in_terminal(
        home, ["init", "chroma:data/db", "-o", "m.yaml"], [("> 1. docs", CTRL_C)]
    )
    assert code == 130, seen
    assert "interrupted" in seen and "Traceback" not in seen
    assert {*tree(home)} == before


def test_what_is_given_is_not_asked(home: Path) -> None:
    given = ["init", "chroma:data/db", "--collection", "more", "--model", "static:wordllama"]
    code, seen = in_terminal(home, [*given, "-o", "m.yaml"], [])
    assert code == 0 and "Esc leaves" not in seen, seen
    assert Manifest.load(home / "m.yaml").source.collection == "more"


@follows_hint("For example `reembed init chroma:./chroma_db`. In a terminal, `reembed init` asks")
def test_without_a_terminal_the_missing_is_named(
    command: Command, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    error = command("init", "--json").json["error"]
    assert error["exit_code"] == 2 and error["message"].startswith("URL is missing")
    assert re.findall("`(.+?)`", error["hint"])[0] == "reembed init chroma:./chroma_db"
    Path("data/db").rename("chroma_db")
    several = command("init", "chroma:./chroma_db")
    assert several.code == 2 and "--collection" in several.err
    assert command("init", "chroma:./chroma_db", "--collection", "docs").code == 0


def test_databases_of_folder_and_environment_are_found(home: Path) -> None:
    (home / ".hidden").mkdir()
    (home / ".hidden" / "chroma.sqlite3").touch()
    (home / "chroma.sqlite3").touch()
    urls = [one.value for one in stores_nearby(home, {
        "DATABASE_URL": "postgresql+psycopg://me:secret@host/base", "PGHOST": "host",
        "POSTGRES_URL": "mysql://no", "CHROMA_HOST": "box", "CHROMA_PORT": "9000",
        "CHROMA_API_KEY": "key", "CHROMA_TENANT": "t", "CHROMA_DATABASE": "d",
    })]  # fmt: skip
    assert urls == [
        "chroma:.", "postgresql://me:secret@host/base", "postgresql://",
        "chroma+cloud://t/d", "chroma+http://box:9000",
    ]  # fmt: skip
    (home / "chroma.sqlite3").unlink()
    assert stores_nearby(home, {}) == [Found("chroma:./data/db", "a folder of Chroma's")]


def test_models_in_reach_are_those_that_embed(monkeypatch: pytest.MonkeyPatch) -> None:
    with EmbeddingServer(OLLAMA) as server:
        monkeypatch.setenv("OLLAMA_HOST", server.url)
        known = [one.value for one in models_in_reach({"OPENAI_API_KEY": "x"})]
        embeds = [name for name in server.models if "embed" in name]
    assert embeds and {f"ollama:{name}" for name in embeds} <= {*known}
    assert "openai:text-embedding-3-small" in known and "static:wordllama" in known
    gone = [one.value for one in models_in_reach({})]
    assert not [one for one in gone if one.startswith(("ollama:", "openai:"))]
