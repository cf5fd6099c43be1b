"""README's five commands on a collection, run as they stand there, print what README shows of them.

Numbers, run ids and the width of the terminal may differ; `…` stands for what was cut off.
"""

from __future__ import annotations

import re
import shlex
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from manifests.demo import corpus
from reembed.manifest import Model
from reembed.stores.chroma.function import ReembedEmbeddingFunction
from tests.support.chroma_data import chroma
from tests.support.commands import Command
from tests.support.sessions import commands

ROOT = Path(__file__).resolve().parents[2]
RECORDS = 400
NUMBER = re.compile(r"-?\d{8}t\d{6}-[0-9a-f]{4}|[-+]?\d[\d,.]*")


def flat(text: str) -> str:
    """Text on one line, with every number and run id as the same sign."""
    return " ".join(NUMBER.sub("#", text).split())


def test_five_commands_print_what_readme_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    today: Any = ReembedEmbeddingFunction(Model(provider="static", name="wordllama", dimensions=64))
    records = corpus(Path(sysconfig.get_path("stdlib")))[:RECORDS]
    with chroma(tmp_path / "chroma_db") as client:
        docs = client.create_collection("docs", embedding_function=today,
                                        configuration={"hnsw": {"space": "cosine"}})  # fmt: skip
        docs.add(ids=[one.id for one in records], documents=[one.text for one in records],
                 metadatas=[one.metadata for one in records])  # fmt: skip
    command = Command(capsys, monkeypatch)
    shown = commands(ROOT / "README.md")
    assert [line.split()[1] for line, _ in shown] == ["try", "plan", "run", "swap", "rollback"]
    for line, lines in shown:
        done = command(*shlex.split(line)[1:])
        assert done.code == 0, done.err
        printed = flat(done.out)
        for wanted in lines:
            for part in wanted.split("…"):
                assert flat(part) in printed, f"{line} does not print: {part}\n{done.out}"
