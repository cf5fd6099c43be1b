"""Two models in turn behind one URL, in ten orders of commands and kills: no run gets a vector of
the wrong one, and no text is paid for twice by one model but for what was in flight at a kill."""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from pathlib import Path

import pytest

from reembed.errors import ModelChangedError
from reembed.run.directory import RunDir
from tests.support.chroma_data import chroma, plain_collection
from tests.support.manifests import migration, run_dir
from tests.support.servers.embedding_server import EmbeddingServer
from tests.support.texts import sentence
from tests.unit.embedders.test_identity import RECORDS, Turns

ORDERS, ACTIONS = 10, 9
MODELS = (0.0, 0.5)


@pytest.mark.long
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("order", range(ORDERS))
def test_an_order_of_commands_and_kills(order: int, tmp_path: Path) -> None:
    chance = random.Random(order)
    with chroma(tmp_path / "filled") as client:
        plain_collection(client, count=RECORDS)
    asked: dict[float, Counter[str]] = {model: Counter() for model in MODELS}
    kills: Counter[float] = Counter()
    with EmbeddingServer() as server:
        server.slow = 0.01

        def count(number: int, texts: list[str]) -> None:
            asked[server.shift].update(texts)

        server.faults = count
        (tmp_path / "work").mkdir()
        turns = Turns(tmp_path / "work", tmp_path / "filled", server)
        options = {"retry_wait": 0.01, "batch_items": 16}
        paths = [turns.manifest(title, options=options) for title in ("one", "two", "three")]
        for _ in range(ACTIONS):
            path, model = chance.choice(paths), chance.choice(MODELS)
            turns.turn(model)
            if chance.random() < 0.5:
                kills[model] += 1
                turns.killed(path, chance.randrange(2, 14))
                continue
            with contextlib.suppress(ModelChangedError):  # its run is the other model's
                migration(path).run(until=chance.choice(("export", "embed", "load")))
        for path in paths:
            finish(turns, path)
    for model in MODELS:
        most = max(asked[model][sentence(number)] for number in range(RECORDS))
        assert most <= 1 + kills[model], (model, most, kills)


def finish(turns: Turns, path: Path) -> None:
    """End a run under the model that it began with, and ask that model for every vector."""
    for model in MODELS:
        turns.turn(model)
        try:
            migration(path).run(until="embed")
        except ModelChangedError:
            continue
        assert RunDir.latest(run_dir(path).path.parent) is not None
        turns.check(path, model)
        return
    raise AssertionError(f"{path.name} is of neither model")
