"""The live name leads to a third collection, or to none: every command says so, with steps that
lead on, whether the name moves by a transaction, by renames or by a pointer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from reembed import live
from reembed.manifest import Model
from tests.support.chroma_data import chroma_at, names_in, plain_collection
from tests.support.commands import Command
from tests.support.following import follows_hint
from tests.support.manifests import write_group_manifest, write_manifest
from tests.support.servers.chroma_server import ChromaServer, chroma_server
from tests.support.texts import sentence, vector_of

NEW = Model(provider="python", name="counting_model:new")
LONG = pytest.mark.long
KINDS = ["transaction", pytest.param("pointer", marks=LONG), pytest.param("rename", marks=LONG)]


@dataclass
class Scene:
    """A store with `docs`, a manifest that moves it by one kind of swap, and what an application
    does to the name."""

    kind: str
    url: str
    manifest: Path
    command: Command
    settings: dict[str, Any] = field(default_factory=dict)

    def ok(self, *words: object) -> Any:
        done = self.command(*words, "--json")
        assert done.code == 0, (words, done.out, done.err)
        return done.json

    def told(self, *words: object) -> str:
        """What a command refuses with."""
        refused = self.command(*words, "--json")
        assert refused.code == 5, (words, refused.out, refused.err)
        error = refused.json["error"]
        return f"{error['message']} {error['hint']}"

    def every(self, *others: str) -> list[str]:
        """What every command says that looks the name up, and that nothing was touched."""
        before, m = names_in(self.url), self.manifest
        commands = {
            "plan": (m,), "run": (m,), "verify": (m,), "swap": (m, "--yes"),
            "rollback": (m, "--yes"), "sweep": (m,), "clean": (m, "--yes"),
        }  # fmt: skip
        told = [self.told(name, *commands[name]) for name in others]
        status = self.ok("status", m)
        assert status["state"] == "name lost" and not status["next"]
        report = self.ok("report", m)
        assert report["state"] == "name lost" and not report["commands"]
        assert names_in(self.url) == before
        return [*told, status["messages"][-1], report["sentence"]]

    def anew(self, count: int = 5) -> None:
        """The application makes its collection again, as after `reset_collection`."""
        with chroma_at(self.url) as client:
            if "docs" in {one.name for one in client.list_collections()}:
                client.delete_collection("docs")
            if self.kind == "pointer":
                for one in client.list_collections():
                    if one.name == "docs__pointer":
                        client.delete_collection(one.name)
            plain_collection(client, count=count)

    def rename(self, before: str, after: str) -> None:
        with chroma_at(self.url) as client:
            client.get_collection(before, embedding_function=None).modify(name=after)

    def delete(self, name: str) -> None:
        with chroma_at(self.url) as client:
            client.delete_collection(name)

    def named(self, part: str) -> str:
        return next(name for name in names_in(self.url) if part in name)

    def serves(self, model: str, count: int) -> None:
        """The plain name serves the vectors of this model."""
        with chroma_at(self.url) as client:
            found = client.get_collection("docs", embedding_function=None)
            vector = vector_of(model, sentence(3)).tolist()
            assert found.query(query_embeddings=[vector], n_results=1)["ids"] == [["r3"]]
            assert found.count() == count


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChromaServer]:
    with chroma_server(tmp_path_factory.mktemp("server") / "db") as found:
        yield found


@pytest.fixture(params=KINDS)
def scene(
    request: pytest.FixtureRequest, tmp_path: Path, server: ChromaServer, command: Command
) -> Scene:
    kind = request.param
    url = server.url if kind != "transaction" else f"chroma:{tmp_path}/db"
    with chroma_at(url) as client:
        for one in client.list_collections():
            client.delete_collection(one.name)
        plain_collection(client)
    settings = {"swap__kind": kind, "swap__accept_window": True, "swap__keep_old": "0d"}
    return Scene(kind, url, write_manifest(tmp_path, url, **settings), command, settings)


def again(scene: Scene, **more: Any) -> Path:
    """The manifest with another `name`, as the hint says."""
    return write_manifest(
        scene.manifest.parent, scene.url, "again.yaml", name="again", **scene.settings, **more
    )


@follows_hint(
    "To move the one that is there now, give the manifest another `name` and use", sometimes=True
)
@follows_hint("give the manifest another `name` and a `target.collection`", sometimes=True)
@follows_hint("Somebody deleted or renamed the collection.")
@follows_hint("rename the one that is there ")
@pytest.mark.parametrize(
    "scene", ["transaction", "pointer", pytest.param("rename", marks=LONG)], indirect=True
)
def test_made_anew_after_the_swap(scene: Scene) -> None:
    scene.ok("run", scene.manifest, "--swap")
    scene.anew()
    parked = scene.named("__parked-")
    gone = scene.kind != "pointer"  # the new one keeps its own name, which nobody deleted
    told = scene.every("plan", "run", "verify", "swap", "rollback", "sweep", "clean")
    for one in told:
        assert "serves a third collection now" in one and "5 records" in one
        assert ("the new one is gone" in one) == gone
        assert f"the old one is there as {parked!r} with 40 records" in one
        assert ("`target.collection`" in one) == (not gone)
        assert "rename the one that is there" in one and "`reembed rollback" in one
    # the one that is there, by a manifest with another name
    more = {} if gone else {"target__collection": "docs-anew"}
    assert scene.ok("run", again(scene, **more))["state"] == "verified"
    # the old one, by the rollback that is told
    scene.rename("docs", "docs-third")
    accept = ["--accept-loss"] if gone else []
    assert "serves no collection now" in scene.told("verify", scene.manifest)
    scene.ok("rollback", scene.manifest, "--yes", *accept)
    scene.serves("old", 40)
    assert scene.ok("status", scene.manifest)["state"] == "rolled back"
    if not gone:
        scene.ok("swap", scene.manifest, "--yes")


@follows_hint("rename the one that is there, and then")
@follows_hint("To have the ")
@follows_hint("Then `reembed rollback ")
@pytest.mark.long
@pytest.mark.parametrize("scene", ["transaction", "rename"], indirect=True)  # no name of a pointer
def test_renamed_away_after_the_swap_and_back(scene: Scene) -> None:
    scene.ok("run", scene.manifest, "--swap")
    scene.rename("docs", "docs-elsewhere")
    for one in scene.every("plan", "run", "verify", "swap", "sweep"):
        assert "serves no collection now" in one
        assert "rename 'docs-elsewhere' to 'docs'" in one
    with chroma_at(scene.url) as client:
        plain_collection(client, count=5)
    for one in scene.every("run", "rollback", "clean"):
        assert "serves a third collection now" in one
        assert "rename the one that is there, and then 'docs-elsewhere' to 'docs'" in one
    scene.rename("docs", "docs-third")
    scene.rename("docs-elsewhere", "docs")
    assert scene.ok("status", scene.manifest)["state"] == "swapped"
    scene.ok("rollback", scene.manifest, "--yes")
    scene.serves("old", 40)


@follows_hint("` gives it the name.")
def test_deleted_after_the_swap(scene: Scene) -> None:
    scene.ok("run", scene.manifest, "--swap")
    scene.delete("docs" if scene.kind != "pointer" else scene.named("__counting_model"))
    for one in scene.every("plan", "run", "verify", "swap"):
        assert "serves no collection now" in one and "the new one is gone" in one
        assert "--yes --accept-loss` gives it the name" in one
    scene.ok("rollback", scene.manifest, "--yes", "--accept-loss")
    scene.serves("old", 40)


@follows_hint("look at the store first. To start over with the collection that is there now")
def test_made_anew_before_the_swap(scene: Scene) -> None:
    scene.ok("run", scene.manifest)
    scene.anew()
    for one in scene.every("plan", "run", "verify", "swap"):
        assert "another collection" in one and "`reembed clean" in one
    assert "35" in scene.told("clean", scene.manifest, "--yes")  # they are in the shadow alone now
    scene.ok("clean", scene.manifest, "--yes", "--accept-loss")
    scene.ok("run", scene.manifest, "--swap")
    if scene.kind != "pointer":
        scene.serves("new", 5)


@follows_hint("or let the application make it again. Then ")
@follows_hint("Somebody deleted or renamed it.")
@pytest.mark.long
def test_deleted_or_renamed_before_the_swap(scene: Scene) -> None:
    scene.ok("run", scene.manifest)
    scene.rename("docs", "docs-elsewhere")
    for one in scene.every("plan", "run", "verify", "swap"):
        assert "serves no collection now" in one and "'docs-elsewhere' to 'docs'" in one
    scene.rename("docs-elsewhere", "docs")
    assert scene.ok("run", scene.manifest)["state"] == "verified"
    scene.delete("docs")
    for one in scene.every("plan", "run", "verify", "swap"):
        assert "the old one is gone" in one and "Restore it (the export shards of" in one
    assert "serves no collection" in scene.told("clean", scene.manifest, "--yes")
    with chroma_at(scene.url) as client:
        plain_collection(client)
    assert "another collection" in scene.told("run", scene.manifest)
    scene.ok("clean", scene.manifest, "--yes")
    scene.ok("run", scene.manifest, "--swap")


@follows_hint("To start over with the one that is there: ", sometimes=True)
@follows_hint(" --yes` deletes this run's new collection", sometimes=True)
@pytest.mark.long
def test_made_anew_after_the_way_back(scene: Scene) -> None:
    scene.ok("run", scene.manifest, "--swap")
    scene.ok("rollback", scene.manifest, "--yes")
    scene.anew()
    for one in scene.every("plan", "run", "verify", "swap", "sweep"):
        assert "third collection" in one or "another collection" in one
        assert "`reembed clean" in one
    scene.ok("clean", scene.manifest, "--yes", "--accept-loss")
    scene.ok("run", scene.manifest, "--swap")


@pytest.mark.long
@pytest.mark.parametrize("scene", ["pointer"], indirect=True)
def test_made_anew_beside_its_pointer(scene: Scene) -> None:
    """As by an application that opens the name by `get_or_create_collection`."""
    scene.ok("run", scene.manifest, "--swap")
    with chroma_at(scene.url) as client:
        plain_collection(client, count=5)
    status = scene.ok("status", scene.manifest)
    assert status["state"] == "swapped", "the pointer leads to the new one"
    (told,) = [one for one in status["messages"] if "beside the pointer" in one]
    assert "5 records" in told and "reembed.live.open" in told and "rename the plain one" in told
    with live.open(scene.url, "docs", model=NEW) as docs:
        assert docs.count() == 40
    scene.rename("docs", "docs-third")
    assert not [one for one in scene.ok("status", scene.manifest)["messages"] if "beside" in one]
    scene.ok("rollback", scene.manifest, "--yes")
    scene.serves("old", 40)


def test_one_of_several_is_made_anew(tmp_path: Path, command: Command) -> None:
    url = f"chroma:{tmp_path}/db"
    with chroma_at(url) as client:
        for name in ("docs", "notes", "papers"):
            plain_collection(client, name, 12)
    path = write_group_manifest(tmp_path, url, swap__keep_old="0d")
    scene = Scene("transaction", url, path, command)
    scene.ok("run", path, "--swap")
    scene.anew()
    status = scene.ok("status", path)
    assert status["state"] == "name lost"
    states = {member["collection"]: member["state"] for member in status["members"]}
    assert states == {"docs": "name lost", "notes": "swapped", "papers": "swapped"}
    for words in (("plan", path), ("run", path), ("swap", path, "--yes"), ("verify", path)):
        told = command(*words)
        assert told.code == 5 and "serves a third collection now" in told.err + told.out, words
    scene.rename("papers", "essays")
    assert "essays" not in str(scene.ok("status", path)["messages"])  # it is the run's own
    back = command("rollback", path, "--yes", "--json")
    assert back.code == 5 and not back.json["messages"]  # the others go back at once
    errors = {one["collection"]: one["error"] for one in back.json["members"]}
    assert errors["notes"] is None
    assert "rename 'essays' to 'papers'" in errors["papers"]["hint"]
    hints = back.json["error"]["hint"].splitlines()  # each way on with the name that it is for
    assert [line.split()[0] for line in hints] == ["docs:", "papers:"]
    assert errors["docs"]["hint"] in hints[0] and errors["papers"]["hint"] in hints[1]
    with chroma_at(url) as client:  # the other one went back all the same
        assert client.get_collection("notes", embedding_function=None).get(
            ids=["r1"], include=["embeddings"]
        )["embeddings"].shape == (1, 48)  # type: ignore[union-attr]
    scene.rename("docs", "docs-third")  # what is told
    scene.rename("essays", "papers")
    scene.ok("rollback", path, "--yes", "--accept-loss")
    scene.serves("old", 12)
    with chroma_at(url) as client:
        papers = client.get_collection("papers", embedding_function=None)
        assert papers.count() == 12 and papers.get_model().dimension == 48


@follows_hint("If that run directory is somewhere else, point `state` to it")
def test_a_leftover_of_a_lost_run_is_known_and_there_are_ways_on(
    tmp_path: Path, database: Path, command: Command
) -> None:
    url = f"chroma:{database}"
    path = write_manifest(tmp_path, url)
    assert command("run", path).code == 0
    (tmp_path / ".reembed").rename(tmp_path / "elsewhere")
    scene = Scene("transaction", url, path, command)
    for step in ("plan", "run"):
        told = scene.told(step, path)
        assert "by its name and its dimensions an earlier run made it (40 records)" in told
        assert "point `state` to it" in told and "choose another target.collection" in told
    with_state = write_manifest(tmp_path, url, "state.yaml", state="./elsewhere")
    assert scene.ok("status", with_state)["state"] == "verified"
    assert scene.ok("run", with_state)["state"] == "verified"
    other = write_manifest(tmp_path, url, "other.yaml", target__collection="docs-other")
    assert scene.ok("run", other)["state"] == "verified"
    scene.ok("clean", other, "--yes")
    scene.delete(scene.named("__counting_model"))
    assert scene.ok("run", path, "--swap")["state"] == "swapped"


def test_both_collections_emptied_after_the_swap_take_a_word(
    tmp_path: Path, database: Path, command: Command
) -> None:
    url = f"chroma:{database}"
    path = write_manifest(tmp_path, url, swap__keep_old="0d")
    scene = Scene("transaction", url, path, command)
    scene.ok("run", path, "--swap")
    with chroma_at(url) as client:
        for name in ("docs", scene.named("__parked-")):
            found = client.get_collection(name, embedding_function=None)
            found.delete(ids=[f"r{n}" for n in range(40)])
    swept = scene.ok("sweep", path)
    assert "has lost 40 of its 40 records" in swept["messages"][-1]
    assert "put the records back before `reembed clean`" in swept["messages"][-1]
    told = scene.told("clean", path, "--yes")
    assert "the live collection has lost 40 of its 40 records" in told and "--accept-loss" in told
    assert scene.named("__parked-"), "nothing was deleted"
    scene.ok("clean", path, "--yes", "--accept-loss")
    assert set(names_in(url)) == {"docs"}
