"""An adversary between any two commands: the live name never loses a mass of records unseen.

The stories of `test_stories.py`, with moves of somebody who means harm or makes a mistake: the live
collection, the parked one or the shadow is emptied, halved, given vectors the wrong way round, or
deleted and made anew under its name. Whatever was done, a command either keeps what was promised or
refuses with counts and a hint that leads on; what a person accepts is done. `make soak` tells 2,000
stories: REEMBED_STORIES is how many.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromadb.api import ClientAPI
from chromadb.api.models.Collection import Collection
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test

from reembed.errors import ReembedError
from tests.stories.test_stories import (
    ACTIONS,
    LIKELY,
    STORIES,
    Stories,
    expected_records,
)
from tests.support.chroma_data import chroma, records_of, vectors_of
from tests.support.crash import outcome, work
from tests.support.texts import vector_of

REFUSALS = (2, 4, 5)
"""Exit codes with which a command may say no: wrong usage, a gate, a refusal."""
ATTACKS = ("empty", "halve", "thin", "reverse", "recreate empty", "recreate", "drop")
STEPS = 14
"""Commands that bring an attacked story to its end, at most."""


class AttackedStories(Stories):
    """See the module.

    Attributes:
        lost: ids that somebody deleted from the collection that is not live, or with it.
        written: every text and number that an id ever had.
        replaced: whether the live collection is no longer the one that the run knows.
        off: whether vectors of the old model may be the wrong way round.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lost: set[str] = set()
        self.written: dict[str, set[tuple[str, int]]] = {}
        self.off = self.replaced = False

    def may_delete(self) -> bool:
        return len(self.model) > 1

    # The adversary

    @precondition(lambda self: self.begun)
    @rule(attack=st.sampled_from(ATTACKS), on_live=st.booleans())
    def attack(self, attack: str, on_live: bool) -> None:
        with chroma(self.folder / "db") as client:
            found = self.collection(client, on_live)
            if found is None:
                return
            ids = sorted(found.get(include=[])["ids"])
            gone = {
                "empty": ids, "halve": ids[: len(ids) // 2 + 1], "thin": ids[::3],
                "recreate empty": ids, "drop": ids,
            }.get(attack, [])  # fmt: skip
            if attack == "reverse":
                if len(ids) > 1 and not on_live:
                    found.update(ids=ids, embeddings=vectors_of(found, ids)[::-1].tolist())
                    self.off = self.off or found.name.startswith("docs__parked-")
                return
            if attack.startswith("recreate") or (attack == "drop" and not on_live):
                self.replaced = self.replaced or on_live
                whole: Any = found.get(include=["documents", "metadatas", "embeddings"])
                client.delete_collection(found.name)
                if attack != "drop":
                    found = client.create_collection(
                        found.name, embedding_function=None,
                        configuration={"hnsw": {"space": "cosine"}},
                    )  # fmt: skip
                if attack == "recreate" and ids:
                    keys = ("ids", "documents", "metadatas", "embeddings")
                    found.add(**{key: whole[key] for key in keys})
            elif gone and attack != "drop":
                found.delete(ids=gone)
            if attack == "drop" and on_live:
                return
        if on_live:
            for id in gone:
                self.model.pop(id, None)
        else:
            self.lost |= {*gone}
            for id in gone:
                self.late.pop(id, None)

    def collection(self, client: ClientAPI, on_live: bool) -> Collection | None:
        names = {one.name for one in client.list_collections()}
        if not on_live:
            names = {name for name in names if re.match(r"docs(-|__parked-)", name)}
        name = "docs" if on_live else next(iter(sorted(names)), "")
        return client.get_collection(name, embedding_function=None) if name in names else None

    def other(self, client: ClientAPI) -> Collection | None:
        return self.collection(client, False)

    # The commands

    def command(self, action: str, accept: bool = False) -> ReembedError | None:
        call = ACTIONS[action]
        if accept and action != "verify":
            call = call.replace("()", "(accept_loss=True)").replace("True)", "True)")
            call = call.replace("swap=True", "swap=True, accept_loss=True")
        before = len(self.model)
        try:
            eval(f"migration.{call}", {"migration": self.migration()})
        except ReembedError as error:
            self.check_refusal(error)
            self.look_again(before, accept)
            return error
        self.look_again(before, accept)
        return None

    def check_refusal(self, error: ReembedError) -> None:
        assert error.exit_code in REFUSALS, error.message
        assert error.hint or self.state == "cleaned", f"no way on: {error.message}"
        if error.kind == "loss":
            assert re.search(r"\d", error.message) or "serves no collection" in error.message
            assert "accept-loss" in error.hint

    @rule(data=st.data())
    def any_command(self, data: st.DataObject) -> None:
        action = data.draw(st.sampled_from([*LIKELY.get(self.state, ()), *ACTIONS]))
        self.command(action, accept=data.draw(st.integers(0, 9)) == 0)
        self.next_if_done()

    @rule(
        data=st.data(),
        kill=st.sampled_from(["journal", "torn", "fsync", "add"]),
        at=st.integers(1, 14),
    )
    def kill(self, data: st.DataObject, kill: str, at: int) -> None:
        action = data.draw(st.sampled_from(LIKELY.get(self.state, tuple(ACTIONS))))
        before = len(self.model)
        code = work(self.manifest, ACTIONS[action], kill, 1 if kill == "add" else at)
        assert code in (-9, 0, 3, *REFUSALS), (action, code, outcome(self.manifest))
        self.look_again(before, False)
        self.next_if_done()

    def next_if_done(self) -> None:
        run = self.run_directory()
        if self.state == "cleaned" and run is not None and self.was_swapped(run):
            with self.live() as (_, model):
                pass
            self.next_migration(model)
            self.lost.clear()

    def look(self) -> None:
        self.begun = self.run_directory() is not None
        self.state = self.migration().status().state

    def look_again(self, before: int, accepted: bool) -> None:
        """What the live name holds now: all that was written through it, less what somebody deleted
        from the other collection on purpose, which never is a mass unless it was accepted."""
        self.look()
        with self.live() as (docs, _):
            there = set(docs.get(include=[])["ids"])
            found = records_of(docs)
        for id in [id for id in self.late if id in there]:
            self.model[id] = self.late.pop(id)
        gone = set(self.model) - there
        if accepted:
            back = {id: self.spoken(id, found[id]) for id in there - set(self.model)}
            self.model |= back
        else:
            assert gone <= self.lost, (gone, self.lost)
            assert not gone or (there and 2 * len(gone) <= before), "a mass went unseen"
        for id in gone:
            del self.model[id]

    def spoken(self, id: str, row: Any) -> tuple[str, int]:
        """The text and number that a record which came back has; it had them once."""
        for text, number in self.written.get(id, ()):
            if expected_records({id: (text, number)})[id] == row:
                return text, number
        raise AssertionError(f"{id} was never written so: {row}")

    def remember(self) -> None:
        for id, version in (*self.model.items(), *self.late.items()):
            self.written.setdefault(id, set()).add(version)

    def holds_what_was_written(self) -> None:
        if not self.migrations:
            return
        self.remember()
        with self.live() as (docs, model):
            found = records_of(docs)
            assert found == expected_records(self.model)
            if (self.off and model == "old") or not found:
                return
            vectors = vectors_of(docs, list(found))
        for id, vector in zip(found, vectors, strict=True):
            assert np.allclose(vector, vector_of(model, self.model[id][0]), rtol=1e-5), id

    # The end

    def finish(self) -> None:
        """However a story ends, what the commands say when they refuse leads to a clean end."""
        accept = False
        for _ in range(STEPS):
            if self.state == "cleaned" or not self.begun:
                break
            order = {"cleaning": "clean", "swapped": "clean", "rolling back": "rollback"}
            action = order.get(self.state, "run --swap")
            error = self.command(action, accept)
            if error is None:
                accept = False
            elif "move the run directory" in error.hint.lower() or "move it away" in error.hint:
                self.start_over()
                break
            elif "an empty source is never migrated" in error.message:
                break  # there is nothing to move, and that is told
            elif typed := re.search(r"`reembed (swap|rollback|sweep|clean)\b([^`]*)`", error.hint):
                refused = self.command(typed[1], "--accept-loss" in typed[2])
                accept = refused is not None and "accept-loss" in refused.hint
            else:
                accept = "accept-loss" in error.hint or accept
            self.holds_what_was_written()
        else:
            assert self.replaced, f"no end: {self.state}, {error}"
            self.start_over()  # what the run moved is not there any more
        self.holds_what_was_written()

    def start_over(self) -> None:
        """What a person does who was told that the run's collections are not there any more."""
        run = self.run_directory()
        assert run is not None
        shutil.move(run.path, Path(self.folder) / f"away-{run.run_id}")


@pytest.mark.slow
def test_an_adversary_never_empties_the_live_name() -> None:
    run_state_machine_as_test(
        AttackedStories,
        settings=settings(
            max_examples=STORIES or 4, stateful_step_count=25 if STORIES else 14, deadline=None,
            derandomize=not STORIES, database=None, suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],  # shrinking would take hours
        ),
    )  # fmt: skip
