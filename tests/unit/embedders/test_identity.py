"""Two models in turn behind one URL: never one vector of the wrong one, and nothing paid twice."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from reembed.embedders.fingerprint import Fingerprint
from reembed.embedders.identity import FOR_LONG_TEXTS, SAME_NAME, find_cache, same_model
from reembed.embedders.registry import open_embedder
from reembed.errors import ModelChangedError
from reembed.manifest import Model
from reembed.records import cosine_rows, fixed_array_to_vectors
from reembed.run import events
from tests.support.chroma_data import chroma, plain_collection
from tests.support.commands import REEMBED
from tests.support.manifests import migration, run_dir, write_manifest
from tests.support.servers.embedding_server import EmbeddingServer, WordLlama
from tests.support.texts import sentence

RECORDS = 200


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("filled") / "db"
    with chroma(folder) as client:
        plain_collection(client, count=RECORDS)
    return folder


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with EmbeddingServer() as running:
        yield running


class Turns:
    """One server whose model changes, and migrations of one state directory."""

    def __init__(self, folder: Path, filled: Path, server: EmbeddingServer) -> None:
        self.folder, self.server = folder, server
        shutil.copytree(filled, folder / "db")
        self.model = WordLlama()

    def manifest(self, title: str, **model: object) -> Path:
        settings = {"provider": "openai", "name": "wordllama", "base_url": self.server.openai_url,
                    "options": {"retry_wait": 0.01}} | model  # fmt: skip
        return write_manifest(
            self.folder, f"chroma:{self.folder / 'db'}", file=f"{title}.yaml", name=title,
            target__collection=title, model=settings, embed__concurrency=2,
        )  # fmt: skip

    def turn(self, shift: float) -> None:
        self.server.shift = shift

    def paid(self, shift: float) -> None:
        """Forget what was paid for."""
        self.turn(shift)
        self.server.served.clear()

    def most_paid(self) -> int:
        texts = [self.server.served[sentence(number)] for number in range(RECORDS)]
        return max(texts)

    def check(self, path: Path, shift: float) -> None:
        """Every vector of the newest run is of the model that is moved by `shift`."""
        run = run_dir(path)
        rows = 0
        for shard in run.shards("embed").values():
            table = run.read_shard(shard)
            vectors = fixed_array_to_vectors(table.column("embedding"))
            for id, vector in zip(table.column("id").to_pylist(), vectors, strict=True):
                text = sentence(int(id[1:]))
                expected = self.model.vector(self.model.ids(text))
                expected[0] += shift
                assert np.abs(vector - expected).max() < 1e-5, id
                rows += 1
        assert rows == RECORDS

    def killed(self, path: Path, requests: int) -> None:
        """`run --until embed`, killed after so many requests."""
        begun = len(self.server.requests)
        process = subprocess.Popen(
            [*REEMBED, "run", str(path), "--until", "embed"], cwd=self.folder, env=dict(os.environ),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        until = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < until:
            if len(self.server.requests) >= begun + requests:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.002)
        process.wait()


@pytest.fixture
def turns(tmp_path: Path, filled: Path, server: EmbeddingServer) -> Turns:
    return Turns(tmp_path, filled, server)


def test_another_model_of_the_same_name_and_address_gets_no_vector_of_the_first(
    turns: Turns,
) -> None:
    one, two, three = (turns.manifest(name) for name in ("one", "two", "three"))
    migration(one).run(until="embed")
    turns.check(one, 0.0)
    turns.turn(0.5)
    plan = migration(two).plan()
    assert plan.estimate.new_tokens == plan.estimate.tokens, "nothing of it is paid for"
    migration(two).run(until="embed")
    turns.check(two, 0.5)
    turns.paid(0.0)  # the first is back: what it gave is found again
    plan = migration(three).plan()
    assert plan.estimate.new_tokens == 0 and plan.estimate.requests == 0
    turns.server.served.clear()
    migration(three).run(until="embed")
    turns.check(three, 0.0)
    assert turns.most_paid() <= 1, "the plan of a run times a few texts, and the run pays for none"
    for path, shift in ((one, 0.5), (two, 0.0)):
        turns.turn(shift)
        for command in (migration(path).run, migration(path).plan):
            with pytest.raises(ModelChangedError):
                command()


def test_a_run_that_is_killed_while_the_models_change_keeps_to_its_own(turns: Turns) -> None:
    path = turns.manifest("one", options={"retry_wait": 0.01, "batch_items": 16})
    turns.server.slow = 0.02
    turns.killed(path, 9)
    turns.turn(0.5)
    with pytest.raises(ModelChangedError):
        migration(path).run(until="embed")
    turns.turn(0.0)
    asked = 0

    def turn_in_the_middle(number: int, texts: list[str]) -> None:
        nonlocal asked
        asked += len(texts) > 9  # more than the probes: records
        if asked == 3:
            turns.turn(0.5)

    turns.server.faults = turn_in_the_middle
    with pytest.raises(ModelChangedError, match="another model answers"):
        migration(path).run(until="embed")
    turns.server.faults = ()
    turns.turn(0.0)
    migration(path).run(until="embed")
    turns.check(path, 0.0)


def test_a_new_name_of_the_same_model_costs_nothing(turns: Turns) -> None:
    migration(turns.manifest("one")).run(until="embed")
    turns.server.models = (*turns.server.models, "wordllama-v2")
    renamed = turns.manifest("two", name="wordllama-v2")
    migration(renamed).run(until="export")
    turns.server.served.clear()
    migration(renamed).run(until="embed")
    turns.check(renamed, 0.0)
    assert turns.most_paid() == 0
    prefixed = turns.manifest("three", document_prefix="passage: ")
    migration(prefixed).run(until="embed")
    assert all(turns.server.served[f"passage: {sentence(number)}"] for number in range(RECORDS))


def test_what_an_earlier_version_left_is_taken_where_its_runs_say_whose_it_is(turns: Turns) -> None:
    path = turns.manifest("one")
    migration(path).run(until="embed")
    state = turns.folder / ".reembed"
    with open_embedder(Model(provider="openai", name="wordllama",
                             base_url=turns.server.openai_url)) as model:  # fmt: skip
        now = model.fingerprint()
        turns.turn(0.5)
        other = model.fingerprint()
    assert same_model(now, now) and not same_model(now, other)
    ((cache, side),) = zip(
        (state / "cache").glob("*.vectors"), (state / "cache").glob("*.model.json"), strict=True
    )
    taken = run_dir(path).history.last(events.FingerprintTaken)
    assert taken is not None
    run = Fingerprint.from_dict(taken.fingerprint)
    side.unlink()
    cache.rename(state / "cache" / f"{run.key}.vectors")
    found = find_cache(state / "cache", run, state)
    assert found == state / "cache" / f"{run.key}.vectors"
    moved = Fingerprint.from_dict(other.to_dict() | {"settings_sha256": run.settings_sha256,
                                                     "settings": run.settings})  # fmt: skip
    assert find_cache(state / "cache", moved, state) is None
    shutil.rmtree(run_dir(path).path)
    assert find_cache(state / "cache", run, state) is None, "nobody tells whose it is"


def test_a_coarser_model_of_another_name_lends_no_vector_of_short_texts() -> None:
    """What differs for long texts alone may differ; who answers is still told by the probes."""
    generator = np.random.default_rng(1)
    exact = generator.standard_normal((9, 64)).astype(np.float32)
    coarse = exact + 0.01 * generator.standard_normal((9, 64)).astype(np.float32)
    kept = Model(provider="openai", name="exact", max_tokens=100)
    for name, vectors, lends in (("exact", exact, True), ("coarse", coarse, False)):
        model = Model(provider="openai", name=name, max_tokens=100, on_too_long="mean")
        old, new = (
            Fingerprint(one.settings(), one.settings_sha256(), 64, made)
            for one, made in ((kept, exact), (model, vectors))
        )
        assert not same_model(old, new)
        assert same_model(old, new, FOR_LONG_TEXTS) is lends
    assert cosine_rows(exact, coarse).min() > SAME_NAME
