"""Whole runs (plan, run, verify by the command line) against a server of some manner, and what a
client would have needed that knew the manner from the start."""

from __future__ import annotations

import functools
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.chroma_data import chroma
from tests.support.commands import Command
from tests.support.manifests import write_manifest
from tests.support.servers.embedding_server import EmbeddingServer, WordLlama
from tests.support.servers.manners import Manner, serve, texts_for, well
from tests.support.texts import sentence

RECORDS = 300
KEY = "wr-5Tq8Zk3Lm1Xv7Rb2Nc9Yp4"
STEPS = ("plan", "run", "verify")
TARGET = "moved"


@dataclass(frozen=True)
class Ended:
    """How a manner's commands ended.

    Attributes:
        codes: exit codes, of the commands that were given; one that is refused is the last.
        said: all that they printed.
        requests: of all commands.
        seconds: of the longest one.
    """

    codes: tuple[int, ...]
    said: str
    requests: int
    seconds: float


def fill(folder: Path, texts: list[str]) -> None:
    with chroma(folder / "db") as client:
        docs = client.create_collection("docs", embedding_function=None)
        chance = np.random.default_rng(1)
        docs.add(
            ids=[f"r{number}" for number in range(len(texts))], documents=texts,
            embeddings=chance.standard_normal((len(texts), 8)).astype(np.float32),
        )  # fmt: skip


def manifest(folder: Path, url: str, manner: Manner, **known: Any) -> Path:
    options = {"retry_wait": 0.01} | manner.model.get("options", {}) | known.pop("options", {})
    model = {"provider": "openai", "name": "wordllama", "base_url": url, "api_key_env": "WHOLE_KEY"}
    return write_manifest(
        folder, f"chroma:{folder / 'db'}", model=model | manner.model | known
        | {"options": options}, source__model=None, target__collection=TARGET,
        verify__allow_quarantined=2,
    )  # fmt: skip


def run_whole(path: Path, server: EmbeddingServer, command: Command) -> Ended:
    codes, said, longest = [], "", 0.0
    for step in STEPS:
        began = time.monotonic()
        outcome = command(step, path)
        longest = max(longest, time.monotonic() - began)
        codes.append(outcome.code)
        said += outcome.out + outcome.err
        if outcome.code not in (0, 3):
            break
    return Ended(tuple(codes), said, len(server.requests), longest)


class Baseline:
    """Requests of a client that knows a manner, by what it knows."""

    def __init__(self, filled: Path, folder: Path, command: Command) -> None:
        self._filled, self._folder, self.command = filled, folder, command
        self._found: dict[int, int] = {}

    def ideal(self, manner: Manner) -> float:
        """Those of a server that does all well, in batches of the manner's, and `extra`."""
        if manner.batch not in self._found:
            plain = replace(manner, answer=well, model={}, headers={}, long=0)
            place = self._folder / f"ideal-{manner.batch}"
            shutil.copytree(self._filled, place)
            with serve(
                replace(plain, behaviour=replace(manner.behaviour, max_tokens=8_192))
            ) as one:
                path = manifest(place, one.openai_url, plain,
                                options={"batch_items": manner.batch})  # fmt: skip
                ended = run_whole(path, one, self.command)
            assert set(ended.codes) <= {0} and len(ended.codes) == len(STEPS), ended.said
            self._found[manner.batch] = ended.requests
        found = self._found[manner.batch]
        if manner.every:
            return found * manner.every / (manner.every - 1)
        return found + manner.extra * (2 if manner.long else 1)  # fidelity embeds them again


@functools.cache
def truth() -> WordLlama:
    return WordLlama()


def check_moved(folder: Path, manner: Manner, texts: list[str]) -> None:
    """As an application sees it: every good record is in the new collection with its vector, and
    only what cannot be embedded is not."""
    with chroma(folder / "db") as client:
        found = client.get_collection(TARGET, embedding_function=None).get(
            include=["embeddings", "documents"]
        )
    got = dict(zip(found["ids"], np.asarray(found["embeddings"]), strict=True))
    missing = {number for number in range(len(texts)) if f"r{number}" not in got}
    assert missing == (set(manner.poison) if manner.quarantined else set())
    for id, vector in got.items():
        text = texts[int(id[1:])]
        if len(text.split()) < 100:
            expected = truth().vector(truth().ids(text))
            assert np.abs(vector - expected).max() < 1e-5, id


def texts_of(manner: Manner) -> list[str]:
    return texts_for(manner, [sentence(number) for number in range(RECORDS)])
