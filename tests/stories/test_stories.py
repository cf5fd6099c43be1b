"""Any order of writes, commands and kills: the live name always holds what the application wrote.

Hypothesis tells stories (`RuleBasedStateMachine`) on a real Chroma folder and holds each against a
model: a dict of what the application wrote through the live name. A killed command is a process of
its own that gets SIGKILL at a journal line, an fsync or a write to Chroma. `make soak` tells more
and longer ones: REEMBED_STORIES is how many.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromadb.api import ClientAPI
from chromadb.api.models.Collection import Collection
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from reembed.errors import GateError, PreflightError, ReembedError, UsageError
from reembed.manifest import Manifest
from reembed.migration import Migration
from reembed.run import events
from reembed.run.directory import RunDir
from reembed.run.history import State
from tests.support.chroma_data import Records, chroma, records_of, vectors_of
from tests.support.crash import work
from tests.support.manifests import model_of, write_manifest
from tests.support.texts import sentence, vector_of

STORIES = int(os.environ.get("REEMBED_STORIES", "0"))
IDS = [f"r{number}" for number in range(10)]
LATE_IDS = [f"late{number}" for number in range(4)]
TEXTS = st.integers(0, 30).map(sentence)
DIMENSIONS = {48: "old", 64: "new"}
ACTIONS = {"run": "run()", "run --swap": "run(swap=True)", "swap": "swap()", "sweep": "sweep()",
           "rollback": "rollback()", "clean": "clean()"}  # fmt: skip
LIKELY: dict[str, tuple[str, ...]] = {
    "created": ("run", "run --swap"), "verified": ("swap", "swap", "run --swap"),
    "swapped": ("rollback", "rollback", "sweep", "clean"),
    "rolled back": ("swap", "swap", "run --swap", "sweep", "clean"), "cleaning": ("clean",),
}  # fmt: skip
"""What a story does rather than wait to be refused."""
UNFINISHED: tuple[State, ...] = ("created", "exported", "embedded", "loaded")


class Stories(RuleBasedStateMachine):
    """One application, one live name, one migration after another.

    Attributes:
        model: what the application wrote through the live name: id to text and number.
        late: what a handle that was opened before a move wrote to the other collection since, and
            no sweep has carried yet.
        gone: ids deleted since the migration began; least, most: how many records there were.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="stories-"))
        self.model: dict[str, tuple[str, int]] = {}
        self.late: dict[str, tuple[str, int]] = {}
        self.gone: set[str] = set()
        self.least = self.most = 0
        self.migrations = 0
        self.state: State = "created"
        self.begun = False

    def teardown(self) -> None:
        try:
            if self.migrations and sys.exc_info()[0] is None:  # else the story has failed already
                self.finish()
        finally:
            shutil.rmtree(self.folder)

    # The application

    @initialize(texts=st.lists(TEXTS, min_size=4, max_size=8))
    def begin(self, texts: list[str]) -> None:
        with chroma(self.folder / "db") as client:
            client.create_collection(
                "docs", embedding_function=None, configuration={"hnsw": {"space": "cosine"}}
            )
        for id, text in zip(IDS, texts, strict=False):
            self.write(id, text, 0)
        self.next_migration("old")

    def next_migration(self, source: str) -> None:
        """A manifest from the model that the live collection has now to the other one."""
        self.migrations += 1
        self.gone, self.least, self.most = set(), len(self.model), len(self.model)
        target = "new" if source == "old" else "old"
        self.manifest = write_manifest(
            self.folder, f"chroma:{self.folder / 'db'}", f"m{self.migrations}.yaml",
            name=f"move{self.migrations}", swap__keep_old="0d", verify__k=3,
            source__model__name=f"counting_model:{source}", model__name=f"counting_model:{target}",
            model__dimensions=64 if target == "new" else 48,
            target__collection=f"docs-{self.migrations}",
        )  # fmt: skip
        self.look()

    @contextmanager
    def live(self) -> Iterator[tuple[Collection, str]]:
        """The live collection and its model, as an application finds it."""
        with chroma(self.folder / "db") as client:
            docs = client.get_collection("docs", embedding_function=None)
            yield docs, DIMENSIONS[docs.get_model().dimension or 48]

    @rule(id=st.sampled_from(IDS), text=TEXTS, number=st.integers(0, 9))
    def write(self, id: str, text: str, number: int) -> None:
        """Add a record, or give one another text and number; add again what was deleted."""
        with self.live() as (docs, model):
            docs.upsert(
                ids=[id], documents=[text], embeddings=[vector_of(model, text)],
                metadatas=[metadata_of(number)],
            )  # fmt: skip
        self.model[id] = text, number
        self.most = max(self.most, len(self.model))

    @precondition(lambda self: self.model)
    @rule(data=st.data(), number=st.integers(0, 9))
    def change_metadata(self, data: st.DataObject, number: int) -> None:
        id = data.draw(st.sampled_from(sorted(self.model)))
        with self.live() as (docs, _):
            docs.update(ids=[id], metadatas=[metadata_of(number)])
        self.model[id] = self.model[id][0], number

    @precondition(lambda self: self.model)
    @rule(data=st.data(), text=TEXTS)
    def change_text(self, data: st.DataObject, text: str) -> None:
        id = data.draw(st.sampled_from(sorted(self.model)))
        with self.live() as (docs, model):
            docs.update(ids=[id], documents=[text], embeddings=[vector_of(model, text)])
        self.model[id] = text, self.model[id][1]

    @precondition(lambda self: self.may_delete())
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        """One record; never so many that they are a mass, which needs a word."""
        id = data.draw(st.sampled_from(sorted(self.model)))
        self.gone.add(id)
        self.least = min(self.least, len(self.model) - 1)
        with self.live() as (docs, _):
            docs.delete(ids=[id])
        del self.model[id]

    def may_delete(self) -> bool:
        left = len(self.model) - 1
        return 2 * (len(self.gone) + 1) <= min(self.least, left) and 2 * left >= self.most

    @precondition(lambda self: self.state in ("swapped", "rolled back") and not self.pending())
    @rule(id=st.sampled_from(LATE_IDS), text=TEXTS)
    def write_late(self, id: str, text: str) -> None:
        """Through a handle that was opened before the name moved."""
        if id in self.model or id in self.late:
            return
        with chroma(self.folder / "db") as client:
            other = self.other(client)
            if other is None:
                return
            dimension = other.get_model().dimension
            if not dimension:  # made anew by an adversary, and empty
                return
            model = DIMENSIONS[dimension]
            other.add(
                ids=[id], documents=[text], embeddings=[vector_of(model, text)],
                metadatas=[metadata_of(0)],
            )  # fmt: skip
        self.late[id] = text, 0

    def other(self, client: ClientAPI) -> Collection | None:
        """The collection that is not live, None before there is one."""
        found = [one for one in client.list_collections() if one.name != "docs"]
        return client.get_collection(found[0].name, embedding_function=None) if found else None

    # The commands

    @rule(data=st.data())
    def any_command(self, data: st.DataObject) -> None:
        self.command(data.draw(st.sampled_from([*LIKELY.get(self.state, ()), *ACTIONS])))

    def command(self, action: str, accept: bool = False) -> ReembedError | None:
        """Returns what it raised, which is what it should."""
        expected = self.refusal_of(action)
        try:
            result = eval(f"migration.{ACTIONS[action]}", {"migration": self.migration()})
        except ReembedError as error:
            assert expected and isinstance(error, expected), (action, self.state, error.message)
            self.look()
            return error
        assert not expected, (action, self.state, "was not refused", result)
        self.look()
        self.check_finished(action)
        return None

    @rule(
        data=st.data(),
        kill=st.sampled_from(["journal", "torn", "fsync", "add"]),
        at=st.integers(1, 14),
    )
    def kill(self, data: st.DataObject, kill: str, at: int) -> None:
        """SIGKILL in the middle, or the command's end where it does not come so far."""
        action = data.draw(st.sampled_from(LIKELY.get(self.state, tuple(ACTIONS))))
        expected = self.refusal_of(action)
        code = work(self.manifest, ACTIONS[action], kill, 1 if kill == "add" else at)
        assert code in (-9, 0) or (expected and code == expected.exit_code), (action, code)
        self.look()
        if code == 0:
            self.check_finished(action)

    def migration(self) -> Migration:
        return Migration(Manifest.load(self.manifest))

    def run_directory(self) -> RunDir | None:
        return RunDir.latest(Manifest.load(self.manifest).state_dir)

    def pending(self) -> bool:
        """Whether a move is begun and not finished."""
        run = self.run_directory()
        return run is not None and (
            self.state in ("swapping", "rolling back") or run.history.swap_unfinished
        )

    def tried(self) -> bool:
        """Whether a swap was tried that has not moved the name, and so may be given up."""
        run = self.run_directory()
        return run is not None and run.history.swap_tried

    def leads_to_new(self) -> bool:
        """Whether the live name leads to the collection of the newest run."""
        with self.live() as (_, model):
            return model == model_of(Manifest.load(self.manifest)).name.removeprefix(
                "counting_model:"
            )

    def look(self) -> None:
        """Where the migration stands, and which late writes have been carried by now."""
        self.begun = self.run_directory() is not None
        self.state = self.migration().status().state
        with self.live() as (docs, _):
            there = set(docs.get(include=[])["ids"])
        for id in [id for id in self.late if id in there]:
            self.model[id] = self.late.pop(id)
        self.most = max(self.most, len(self.model))

    def refusal_of(self, action: str) -> type[ReembedError] | None:
        """What a command raises as things are; None where it does its work."""
        state = self.state
        if state == "cleaning":
            return None if action == "clean" else UsageError
        if action in ("run", "run --swap"):
            return PreflightError if self.late and state == "rolled back" else None
        if not self.begun:
            return UsageError
        if action == "swap":
            if state in (*UNFINISHED, "failed"):
                return GateError
            if state == "cleaned":
                return UsageError
            if state == "rolling back":  # it is given up, unless the name has moved back
                return None if self.leads_to_new() else PreflightError
            return PreflightError if self.late and state == "rolled back" else None
        if action == "rollback":
            moved = state in ("swapped", "swapping", "rolling back", "rolled back")
            return None if moved or self.tried() else UsageError
        if action == "sweep":
            return None if state in ("swapped", "rolled back") else UsageError
        if self.pending() and (state != "swapping" or self.leads_to_new()):
            return UsageError
        return PreflightError if self.late else None

    def check_finished(self, action: str) -> None:
        """A command that ended well leaves nothing of its work behind."""
        run = self.run_directory()
        assert run is not None
        assert not list(self.folder.rglob("*.tmp"))
        assert not self.pending(), self.state
        assert (run.path.parent / "lease").read_text() == ""
        with chroma(self.folder / "db") as client:
            names = {one.name for one in client.list_collections()}
        shadow, parked = f"docs-{self.migrations}", f"docs__parked-{run.run_id}"
        if self.state == "cleaned":
            assert names == {"docs"}
        else:
            assert names == {"docs", parked if self.state == "swapped" else shadow}, self.state
        if action in ("sweep", "rollback"):
            assert not self.late or (action == "rollback" and self.state == "rolled back")
        if self.state == "cleaned":
            with self.live() as (_, model):
                pass
            ended = run.history.last(events.SwapDone, events.RollbackDone, events.Cleaned)
            if ended and self.was_swapped(run):
                self.next_migration(model)

    @staticmethod
    def was_swapped(run: RunDir) -> bool:
        last = run.history.last(events.SwapDone, events.RollbackDone)
        return isinstance(last, events.SwapDone)

    def finish(self) -> None:
        """However a story ends, commands given again bring it to a clean end."""
        if self.state == "cleaning":
            self.command("clean")
        for action in ("run --swap", "sweep", "clean"):
            if self.refusal_of(action):
                self.command("sweep")
            self.command(action)
        self.holds_what_was_written()
        assert not self.late

    # What is always true

    @invariant()
    def holds_what_was_written(self) -> None:
        if not self.migrations:
            return
        with self.live() as (docs, model):
            found = records_of(docs)
            assert found == expected_records(self.model)
            ids = list(found)
            vectors = vectors_of(docs, ids)
        for id, vector in zip(ids, vectors, strict=True):
            assert np.allclose(vector, vector_of(model, self.model[id][0]), rtol=1e-5), id


def metadata_of(number: int) -> Any:
    """Metadata that every write replaces whole."""
    return {"n": number, "share": number / 8}


def expected_records(model: dict[str, tuple[str, int]]) -> Records:
    return {
        id: (text, json.dumps(metadata_of(number), sort_keys=True), None)
        for id, (text, number) in model.items()
    }


@pytest.mark.slow
@pytest.mark.timeout(1200)  # half a minute of computing, on a busy machine too
def test_the_live_name_holds_what_was_written() -> None:
    run_state_machine_as_test(
        Stories,
        settings=settings(
            max_examples=STORIES or 5, stateful_step_count=30 if STORIES else 14, deadline=None,
            derandomize=not STORIES, database=None, suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],  # shrinking would take hours
        ),
    )  # fmt: skip
