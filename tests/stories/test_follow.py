"""`mode: follow`: a job that carries what changed in a corpus into the live collection."""

from __future__ import annotations

import json
import random
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest

from reembed.run import events
from reembed.run.directory import RunDir
from reembed.run.vector_file import keys_in
from tests.support.chroma_data import chroma, names_in, plain_collection
from tests.support.commands import Calls, Command, Outcome
from tests.support.following import follows_hint
from tests.support.manifests import write_manifest
from tests.support.texts import sentence, vector_of

RECORDS = 120


class Scene:
    """A corpus of JSON lines, a Chroma folder, and a manifest that follows the one into the other.

    Attributes:
        texts: what the corpus holds, by id.
        foreign: what an application has written into the live collection by itself.
    """

    def __init__(
        self, folder: Path, command: Command, calls: Calls, records: int = RECORDS
    ) -> None:
        self.folder, self.command, self.calls = folder, command, calls
        self.texts = {f"r{n}": sentence(n) for n in range(records)}
        self.foreign: dict[str, str] = {}
        self.next = records
        with chroma(folder / "db"):
            pass
        self.write()
        self.manifest()

    def manifest(self, **changes: Any) -> None:
        self.path = write_manifest(
            self.folder, "jsonl:./corpus.jsonl", source__model=None, verify__sample=100,
            **{"mode": "follow", "source__collection": "corpus", "target__url": "chroma:./db",
               "target__collection": "docs"} | changes,
        )  # fmt: skip

    def write(self) -> None:
        lines = [
            json.dumps({"id": id, "text": text, "length": len(text)})
            for id, text in self.texts.items()
        ]
        (self.folder / "new").write_text("".join(f"{line}\n" for line in lines))
        (self.folder / "new").rename(self.folder / "corpus.jsonl")

    def change(self, added: int = 1, changed: int = 1, deleted: int = 1, seed: int = 0) -> None:
        """Change some of the corpus."""
        chance = random.Random(f"{seed} {self.next}")
        ids = chance.sample(sorted(self.texts), changed + deleted)
        for id in ids[:changed]:
            self.texts[id] = self._sentence()
        for id in ids[changed:]:
            del self.texts[id]
        for _ in range(added):
            self.texts[f"r{self.next}"] = self._sentence()
        self.write()

    def _sentence(self) -> str:
        self.next += 1
        return sentence(self.next)

    def run(self, *options: str) -> Outcome:
        return self.command("run", self.path, "--swap", "--json", *options)

    def done(self, *options: str) -> Any:
        found = self.run(*options)
        assert found.code == 0, found.out + found.err
        return found.json

    def check(self, model: str = "new") -> None:
        """Look at the live collection as an application does."""
        with chroma(self.folder / "db") as client:
            live = client.get_collection("docs", embedding_function=None)
            found = live.get(include=["documents", "metadatas", "embeddings"])
            assert found["documents"] is not None and found["metadatas"] is not None
            texts = dict(zip(found["ids"], found["documents"], strict=True))
            assert texts == self.texts | self.foreign
            for row, id in enumerate(found["ids"]):
                if id in self.foreign:
                    continue
                assert found["metadatas"][row] == {"length": len(texts[id])}
                expected = vector_of(model, texts[id])
                got = np.asarray(found["embeddings"][row])  # type: ignore[index]
                np.testing.assert_allclose(got, expected, atol=1e-4)
            some = sorted(self.texts)[:: max(1, len(self.texts) // 20)]
            asked = [vector_of(model, self.texts[id]) for id in some]
            answers = live.query(query_embeddings=asked, n_results=1)["ids"]
            assert [answer[0] for answer in answers] == some

    def read(self) -> dict[str, tuple[str, bool]]:
        """Text of each live record, and whether its vector is that text's; nothing without one."""
        with chroma(self.folder / "db") as client:
            if "docs" not in [one.name for one in client.list_collections()]:
                return {}
            live = client.get_collection("docs", embedding_function=None)
            found = live.get(include=["documents", "embeddings"])
            assert found["documents"] is not None
            rows = zip(found["ids"], found["documents"], found["embeddings"], strict=True)  # type: ignore[arg-type]
            return {id: (text, bool(np.allclose(vector, vector_of("new", text), atol=1e-4)))
                    for id, text, vector in rows}  # fmt: skip

    def names(self) -> list[str]:
        return sorted(names_in(f"chroma:{self.folder / 'db'}"))

    def latest(self) -> RunDir:
        run = RunDir.latest(self.folder / ".reembed" / "move")
        assert run is not None
        return run

    def bytes(self) -> int:
        return sum(
            path.stat().st_size for path in (self.folder / ".reembed").rglob("*") if path.is_file()
        )


@pytest.fixture
def scene(tmp_path: Path, command: Command, calls: Calls, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.chdir(tmp_path)
    return Scene(tmp_path, command, calls)


def test_the_first_call_builds_and_the_next_ones_carry_what_changed(scene: Scene) -> None:
    first = scene.done()
    assert first["state"] == "swapped" and first["loaded"] == RECORDS
    scene.check()
    assert scene.names() == ["docs"]
    shadow = scene.latest().history.shadow_id
    scene.calls.clear()
    again = scene.done()
    assert again["unchanged"] and again["messages"][0] == "nothing has changed"
    assert len(scene.calls.texts("new")) < 20, "the probes of the model alone"

    for night in range(3):
        scene.change(seed=night)
        scene.calls.clear()
        done = scene.done("--if-changed")  # as the command lines of manifests/schedules have it
        assert done["differs"] == {"added": 1, "changed": 1, "deleted": 1}
        assert "carried: 1 added, 1 changed, 1 deleted" in done["messages"]
        assert len(scene.calls.texts("new")) <= 20 + 2
        scene.check()
        assert scene.names() == ["docs"]
        assert scene.latest().history.shadow_id == shadow
    kept = list((scene.latest().path / "replaced").iterdir())
    assert len(kept) == 1, "what the last call has replaced, and no more"


@pytest.mark.long
def test_without_swap_it_only_tells(scene: Scene) -> None:
    built = scene.command("run", scene.path, "--json").json
    assert built["state"] == "verified" and "docs" not in scene.names()
    assert scene.done()["state"] == "swapped"
    scene.check()
    before = dict(scene.texts)
    scene.change(3, 2, 1)
    told = scene.command("run", scene.path, "--json").json
    assert told["differs"] == {"added": 3, "changed": 2, "deleted": 1} and not told["unchanged"]
    assert told["messages"] == ["differs: 3 added, 2 changed, 1 deleted; --swap carries it"]
    scene.texts, now = before, scene.texts
    scene.check()
    scene.texts = now
    scene.done()
    scene.check()


def test_much_or_another_model_is_a_rebuild_and_rollback_takes_it_back(scene: Scene) -> None:
    scene.done()
    scene.change(added=40)
    scene.calls.clear()
    done = scene.done()
    assert "more than follow.rebuild_above (20%)" in done["messages"][0]
    (embedded,) = [
        event.stats["texts"] for event in scene.latest().history.all(events.StageDone)
        if event.stage == "embed"
    ]  # fmt: skip
    assert embedded < 40 + 20, "what is known is not paid for again"
    scene.check()
    assert len(scene.names()) == 2, "one is kept for a way back"
    scene.manifest(model__name="counting_model:other", model__dimensions=48)
    assert "the manifest has changed" in scene.done()["messages"][0]
    scene.check("other")
    assert len(scene.names()) == 2 and len(list((scene.folder / ".reembed/move").glob("2*"))) == 2
    assert scene.command("rollback", scene.path).code == 0
    scene.check("other")
    back = scene.command("rollback", scene.path, "--yes", "--json")
    assert back.code == 0, back.err
    scene.check("new")
    scene.manifest()
    assert scene.done()["unchanged"]
    scene.check("new")
    assert "rebuild" in scene.done("--rebuild")["messages"][0]
    scene.check("new")
    assert scene.command("clean", scene.path, "--yes").code == 0
    assert scene.names() == ["docs"] and len(list((scene.folder / ".reembed/move").glob("2*"))) == 1
    scene.check("new")
    kept = list[int]()
    for path in scene.folder.glob(".reembed/cache/*.vectors"):
        with path.open("rb") as file:
            kept.append(sum(map(len, keys_in(file.fileno()))))
    assert sorted(kept) == [0, len(scene.texts)], "no vector stays that nothing needs"
    assert scene.command("rollback", scene.path, "--yes").code == 2


def test_a_collapsed_corpus_is_refused_and_nothing_is_changed(scene: Scene) -> None:
    scene.done()
    whole = dict(scene.texts)
    for left in (0, 40):
        scene.texts = dict(list(whole.items())[:left])
        scene.write()
        refused = scene.run()
        assert refused.code == 4, refused.out
        assert "has lost" in refused.json["error"]["message"]
        scene.texts, small = whole, scene.texts
        scene.check()
        scene.texts = small
    assert scene.run("--accept-loss").code == 0
    scene.check()
    (scene.folder / "corpus.jsonl").unlink()
    assert scene.run().code == 5
    scene.check()


def test_a_bad_line_stops_it_before_anything_is_written(scene: Scene) -> None:
    scene.done()
    before = dict(scene.texts)
    with (scene.folder / "corpus.jsonl").open("a") as file:
        file.write('{"id": "x", "text": \n')
    refused = scene.run()
    assert refused.code == 5 and f"line {RECORDS + 1}" in refused.json["error"]["message"]
    scene.texts = before
    scene.check()
    scene.texts["blank"] = " "
    scene.write()
    refused = scene.run()
    assert refused.code == 4 and "allow_quarantined" in refused.json["error"]["message"]
    del scene.texts["blank"]
    scene.check()
    scene.texts["blank"] = sentence(7777)
    scene.write()
    scene.done()
    scene.check()


def own(scene: Scene, *ids: str) -> None:
    """An application writes records of its own, and deletes one of the corpus's."""
    with chroma(scene.folder / "db") as client:
        live = client.get_collection("docs", embedding_function=None)
        texts = [f"mine {id}" for id in ids]
        live.add(ids=list(ids), documents=texts, embeddings=[vector_of("new", t) for t in texts])
        live.delete(ids=["r5"])
    scene.foreign |= dict(zip(ids, texts, strict=True))


@pytest.mark.long
def test_an_applications_own_records_are_kept_and_what_it_deleted_comes_back(scene: Scene) -> None:
    scene.done()
    own(scene, "mine1", "mine2")
    told = scene.done()["messages"]
    assert any("2 records are not the corpus's, e.g. mine1, mine2" in one for one in told)
    assert any("put 1 records back" in one for one in told)
    scene.check()
    told = scene.done("--rebuild")["messages"]
    assert "2 records that are not the corpus's were copied along" in told
    scene.check()
    scene.change()
    assert scene.done()["differs"]["deleted"] == 1, "its own are no deletions of the corpus"
    scene.check()
    own(scene, "mine3")
    scene.manifest(follow__delete_foreign=True)
    scene.done()
    scene.foreign = {"mine1": "mine mine1", "mine2": "mine mine2"}
    scene.done("--rebuild")
    scene.foreign = {}
    scene.check()


def test_rollback_takes_a_carry_back(scene: Scene) -> None:
    scene.done()
    before = dict(scene.texts)
    scene.change(2, 3, 4)
    scene.done()
    scene.check()
    would = scene.command("rollback", scene.path, "--json").json
    assert would["messages"] == ["would take back the last carry (2 added, 3 changed, 4 deleted)"]
    scene.check()
    scene.calls.clear()
    assert scene.command("rollback", scene.path, "--yes").code == 0
    assert not set(scene.calls.texts("new")) & {0}
    scene.texts, now = before, scene.texts
    scene.check()
    status = scene.command("status", scene.path, "--json").json
    assert any("(taken back)" in one for one in status["messages"])
    scene.texts = now
    assert scene.done()["differs"] == {"added": 2, "changed": 3, "deleted": 4}
    scene.check()


@pytest.mark.long
def test_a_collection_that_others_made_is_taken_over_only_on_a_word(scene: Scene) -> None:
    with chroma(scene.folder / "db") as client:
        plain_collection(client, "docs", 40)
    refused = scene.run()
    assert refused.code == 5 and "did not make" in refused.json["error"]["message"]
    planned = scene.command("plan", scene.path, "--json")
    assert planned.code == 5 and "--adopt" in planned.json["error"]["hint"]
    assert scene.names() == ["docs"]
    done = scene.done("--adopt")
    scene.check()
    (parked,) = set(scene.names()) - {"docs"}
    assert done["swap"]["parked"] == parked
    assert scene.done()["unchanged"]
    scene.command("clean", scene.path, "--yes")
    assert parked in scene.names(), "what the job did not make it does not delete"
    scene.check()


def test_a_job_does_not_follow_itself(scene: Scene) -> None:
    scene.manifest(target__collection="corpus", target__url="jsonl:./corpus.jsonl")
    refused = scene.command("plan", scene.path, "--json")
    assert refused.code == 5 and "a name of its own" in refused.json["error"]["hint"]


@follows_hint("`reembed compare` tells by the same queries which of several models finds more.")
def test_judged_queries_of_raw_documents_are_shown_and_decide_nothing(scene: Scene) -> None:
    """There was no search before that could get worse, so nothing is left unproven."""
    asked = sorted(scene.texts)[:40]
    queries = [json.dumps({"_id": id, "text": scene.texts[id]}) for id in asked]
    (scene.folder / "queries.jsonl").write_text("\n".join(queries))
    judged = ["query-id\tcorpus-id\tscore", *(f"{id}\t{id}\t1" for id in asked)]
    (scene.folder / "qrels.tsv").write_text("\n".join(judged))
    files = {"verify__queries": "./queries.jsonl", "verify__qrels": "./qrels.tsv"}
    scene.manifest(**files)
    planned = scene.command("plan", scene.path)
    assert planned.code == 0 and "there is no search to compare with" in planned.out
    done = scene.done()
    (gate,) = [one for one in done["verdict"]["gates"] if one["name"] == "recall"]
    assert gate["status"] == "shown" and gate["figures"]["kind"] == "judged"
    assert gate["figures"]["new"] == 1.0
    scene.check()
    shorter = scene.folder / "shorter.yaml"
    told = scene.path.read_text()
    assert told.count("counting_model:new") == told.count("dimensions: 64") == 1
    told = told.replace("counting_model:new", "counting_model:other")
    shorter.write_text(told.replace("dimensions: 64", "dimensions: 48"))
    compared = scene.command("compare", scene.path, shorter, "--json")
    assert compared.code == 0, compared.out
    found = [one["metrics"]["recall"]["mean"]["mean"] for one in compared.json["candidates"]]
    assert found == [1.0, 1.0]


@follows_hint("Name as the source what these were built from, or another corpus.")
def test_no_other_spelling_of_an_address_lets_a_job_follow_its_own_collections(
    scene: Scene,
) -> None:
    scene.done()
    scene.done("--rebuild")
    (replaced,) = set(scene.names()) - {"docs"}
    for own, words in (("docs", "a name of its own"), (replaced, "what these were built from")):
        scene.manifest(source__url="chroma:./db?database=default_database", source__collection=own)
        for call in (("plan",), ("run", "--swap")):
            refused = scene.command(call[0], scene.path, *call[1:], "--json")
            assert refused.code == 5 and words in refused.json["error"]["hint"], refused.out
    scene.check()
    copytree(scene.folder / "db", scene.folder / "copy")  # its collections have the same ids
    scene.manifest(source__url="chroma:./copy", source__collection="docs")
    assert scene.command("plan", scene.path).code == 0
    scene.manifest()
    assert scene.done()["unchanged"]
    scene.check()


@follows_hint("Leave source.mem0 out; or leave mode out, and `reembed run --swap` moves mem0.")
def test_a_job_moves_no_applications_own_collection(scene: Scene) -> None:
    """What mem0 keeps beside its tables is for a migration, and `model: keep` embeds nothing."""
    scene.manifest(source__layout="mem0", source__mem0={"history": "./history.db"})
    refused = scene.command("plan", scene.path)
    assert refused.code == 5 and "of which mem0 knows nothing" in refused.err
    scene.manifest(model="keep")
    refused = scene.command("plan", scene.path)
    assert refused.code == 5 and "mode: follow is for what a model embeds" in refused.err
    scene.manifest()
    scene.done()
    scene.check()


@pytest.mark.long
def test_a_hold_stops_a_carry_and_a_build(scene: Scene) -> None:
    scene.done()
    hold = scene.folder / ".reembed" / "move" / "hold"
    hold.write_text("until Monday\n")
    assert scene.done()["unchanged"]
    before = dict(scene.texts)
    scene.change()
    assert scene.run().code == 5
    scene.texts, now = before, scene.texts
    scene.check()
    hold.unlink()
    scene.texts = now
    scene.done()
    scene.check()


def test_options_are_for_their_mode(scene: Scene) -> None:
    refused = scene.command("run", scene.path, "--retry-quarantined", "--json")
    assert (refused.code, refused.json["error"]["kind"]) == (2, "usage")
    assert scene.command("sweep", scene.path).code == 2
    scene.manifest(mode="once")
    assert scene.command("run", scene.path, "--rebuild").code == 2
