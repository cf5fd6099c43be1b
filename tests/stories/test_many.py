"""Several collections that move together."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg import sql

from reembed.cutover.move import finish_move
from reembed.errors import PreflightError
from reembed.manifest import Manifest
from reembed.migration.group import session
from reembed.run import events
from reembed.run.directory import RunDir
from reembed.run.events import Action
from reembed.stores.chroma import client as chroma_client
from reembed.stores.chroma import metric as chroma_metric
from reembed.stores.chroma.claims import ChromaClaims
from reembed.stores.registry import open_store
from reembed.stores.store import Store
from reembed.stores.values import Receipt
from tests.campaigns.soak.many import Campaign
from tests.support.chroma_data import (
    Records,
    chroma,
    chroma_at,
    names_in,
    plain_collection,
    records_of,
    vectors_of,
)
from tests.support.commands import Calls, Command
from tests.support.crash import outcome, work
from tests.support.following import follows_hint
from tests.support.manifests import write_group_manifest
from tests.support.servers.chroma_server import ChromaServer
from tests.support.texts import sentence, vector_of

SIZES = {"alpha": 12, "beta": 7, "gamma": 1}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three collections with records, one that was emptied, one that was never filled, and one that
    is left out."""
    with chroma(tmp_path / "db") as client:
        for name, count in SIZES.items():
            plain_collection(client, name, count)
        emptied = plain_collection(client, "emptied", 3)
        emptied.delete(ids=["r0", "r1", "r2"])
        plain_collection(client, "never", 0)
        plain_collection(client, "scratch", 5)
    return tmp_path / "db"


@pytest.fixture
def manifest(tmp_path: Path, folder: Path) -> Path:
    return write_group_manifest(
        tmp_path, f"chroma:{folder}", source__except="scra*", swap__keep_old="0h"
    )


def everything(folder: Path) -> dict[str, Records]:
    with chroma(folder) as client:
        return {found.name: records_of(found) for found in client.list_collections()}


def model_of(folder: Path, name: str) -> str:
    """Which model made the vectors of a collection."""
    with chroma(folder) as client:
        found = client.get_collection(name, embedding_function=None)
        ids = found.get(include=[])["ids"]
        served = vectors_of(found, ids)
        texts = [sentence(int(id.removeprefix("r"))) for id in ids]
        for model in ("old", "new"):
            made = [vector_of(model, text) for text in texts]
            if len(made[0]) == served.shape[1] and abs(served - made).max() < 1e-5:
                return model
    raise AssertionError(f"{name} has vectors of no model")


def states(document: Any) -> dict[str, str]:
    return {member["collection"]: member["state"] for member in document["members"]}


@contextlib.contextmanager
def leases_counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """How often the lease of each live name is taken in the block."""
    counted, claim = Counter[str](), ChromaClaims.claim

    def counting(self: ChromaClaims, live: str, *given: Any) -> str | None:
        counted[live] += 1
        return claim(self, live, *given)

    with monkeypatch.context() as patch:
        patch.setattr(ChromaClaims, "claim", counting)
        yield counted


def test_all_move_in_one_transaction_there_and_back(
    manifest: Path, folder: Path, command: Command, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = everything(folder)
    planned = command("plan", manifest, "--json")
    assert planned.code == 0, planned.err
    notes = {member["collection"]: member["note"] for member in planned.json["members"]}
    assert set(notes) == {*SIZES, "emptied", "never"}
    assert "64 dimensions instead of 48" in notes["emptied"] and "left as it is" in notes["never"]
    assert planned.json["records"] == sum(SIZES.values())
    assert everything(folder) == before and not (manifest.parent / ".reembed").exists()

    ran = command("run", manifest, "--json")
    assert ran.code == 0, ran.err
    assert states(ran.json) == dict.fromkeys([*SIZES, "emptied"], "verified")
    assert ran.json["verdict"]["passed"] and ran.json["exported"] == sum(SIZES.values())
    assert ran.json["spent"]["tokens"] > 0
    assert {name: everything(folder)[name] for name in before} == before

    ids = names_in(f"chroma:{folder}")
    with leases_counted(monkeypatch) as leases:
        swapped = command("swap", manifest, "--yes", "--json")
    assert swapped.code == 0, swapped.err
    assert leases == dict.fromkeys([*SIZES, "emptied"], 1)  # more would take most of the time
    assert swapped.json["together"] == "all names move in one transaction"
    now = names_in(f"chroma:{folder}")
    for name in (*SIZES, "emptied"):
        assert now[name] != ids[name]
        assert everything(folder)[name] == before[name]
    assert (now["never"], now["scratch"]) == (ids["never"], ids["scratch"])
    assert {model_of(folder, name) for name in SIZES} == {"new"}
    assert command("verify", manifest).code == 0
    with chroma(folder) as client:  # an emptied collection takes the new model's vectors
        emptied = client.get_collection("emptied", embedding_function=None)
        emptied.add(ids=["r1"], documents=[sentence(1)], embeddings=[vector_of("new", sentence(1))])

    again = command("run", manifest, "--json")
    assert again.code == 0 and again.json["unchanged"] and again.json["state"] == "swapped"
    with leases_counted(monkeypatch) as leases:
        back = command("rollback", manifest, "--yes", "--json")
    assert back.code == 0, back.err
    assert leases == dict.fromkeys([*SIZES, "emptied"], 1)
    found = names_in(f"chroma:{folder}")
    assert {name: found[name] for name in ids if name in before} == {n: ids[n] for n in before}
    assert {model_of(folder, name) for name in (*SIZES, "emptied")} == {"old"}
    with monkeypatch.context() as patch:  # which opens an index, and takes long for a thousand
        patch.setattr(chroma_metric, "probe", None)
        stands = command("status", manifest, "--json").json
    assert stands["state"] == "rolled back" and set(states(stands).values()) == {"rolled back"}
    assert not [told for member in stands["members"] for told in member["messages"]
                if "could not be" in told]  # fmt: skip

    assert command("swap", manifest, "--yes").code == 0
    cleaned = command("clean", manifest, "--yes", "--json")
    assert cleaned.code == 0, cleaned.err
    assert set(names_in(f"chroma:{folder}")) == set(before)
    assert {model_of(folder, name) for name in (*SIZES, "emptied")} == {"new"}
    assert command("status", manifest, "--json").json["state"] == "cleaned"


def test_every_blocked_collection_is_named_and_nothing_is_begun(
    manifest: Path, folder: Path, command: Command
) -> None:
    with chroma(folder) as client:
        for name in ("beta", "gamma"):
            client.create_collection(f"{name}__counting_model-new-64", embedding_function=None)
    for step in ("plan", "run"):
        refused = command(step, manifest, "--json")
        assert refused.code == 5
        told = refused.json["error"]["message"]
        assert "beta: the target collection" in told and "gamma: the target collection" in told
        assert "alpha:" not in told and "source.except" in refused.json["error"]["hint"]
    assert not list((manifest.parent / ".reembed").glob("move/2*"))
    exceptions = ["scra*", "beta", "gamma", "*__counting_model-new-64"]
    path = write_group_manifest(
        manifest.parent, f"chroma:{folder}", source__except=exceptions
    )  # the hint
    assert command("run", path).code == 0


def test_names_patterns_and_what_matches_nothing(
    tmp_path: Path, folder: Path, command: Command
) -> None:
    def members(collections: Any, **changes: Any) -> Any:
        path = write_group_manifest(tmp_path, f"chroma:{folder}", collections, **changes)
        found = command("plan", path, "--json")
        return found.json.get("error") or {m["collection"] for m in found.json["members"]}

    assert members(["alpha", "*mma"]) == {"alpha", "gamma"}
    assert members("?eta") == {"beta"}
    assert members("[ab]*", source__except="alpha") == {"beta"}
    assert "matches 'Alpha', 'x*'" in members(["Alpha", "x*", "beta"])["message"]
    assert "nothing to move" in members(["alpha"], source__except=["a*"])["message"]
    assert "all of the collections are empty" in members(["never"])["message"]


def test_a_key_of_one_collection_is_refused(tmp_path: Path, command: Command) -> None:
    for change in ({"target__collection": "x"}, {"swap__live": "x"}, {"source__collection": "x"}):
        path = write_group_manifest(tmp_path, "chroma:./db", **change)
        if "source__collection" in change:
            path.write_text(
                path.read_text().replace("collections:", "collection: x\n  collections:")
            )
        assert command("plan", path).code == 5
    path = write_group_manifest(tmp_path, "chroma:./db")
    path.write_text(path.read_text().replace("collections: '*'", "except: a"))
    assert "source.except" in command("plan", path).err


@follows_hint("If the application deleted it for good, `reembed clean --accept-loss` deletes the")
def test_one_that_appears_is_taken_in_and_one_that_goes_is_left_out(
    manifest: Path, folder: Path, command: Command
) -> None:
    assert command("run", manifest).code == 0
    with chroma(folder) as client:
        plain_collection(client, "delta", 4)
        client.delete_collection("beta")
    told = command("status", manifest, "--json").json["messages"]
    assert any("delta" in message and "`reembed run` adds them" in message for message in told)
    ran = command("run", manifest, "--json")
    assert ran.code == 0, ran.err
    assert set(states(ran.json)) == {"alpha", "gamma", "emptied", "delta"}
    assert any("left out: 'beta'" in message for message in ran.json["messages"])
    with chroma(folder) as client:
        client.delete_collection("gamma")
    told = command("status", manifest, "--json").json
    assert told["state"] == "verified" and "deleted since the run began: 'gamma'" in str(told)
    swapped = command("swap", manifest, "--yes", "--json")
    assert swapped.code == 0, swapped.err
    assert "deleted since the run began, and left out: 'gamma'" in swapped.json["messages"]
    assert {model_of(folder, name) for name in ("alpha", "delta")} == {"new"}
    with chroma(folder) as client:
        plain_collection(client, "late", 2)
    told = command("run", manifest, "--json").json["messages"]
    assert any("'late'" in message and "another `name`" in message for message in told)
    with chroma(folder) as client:
        client.delete_collection("delta")
    refused = command("clean", manifest, "--yes", "--json")
    assert refused.code == 5 and "'delta' serves no collection" in refused.json["error"]["message"]
    assert command("clean", manifest, "--yes", "--accept-loss").code == 0
    assert set(names_in(f"chroma:{folder}")) == {"alpha", "emptied", "never", "scratch", "late"}
    assert command("status", manifest, "--json").json["state"] == "cleaned"


def test_a_cap_is_of_all_together(tmp_path: Path, folder: Path, command: Command) -> None:
    path = write_group_manifest(tmp_path, f"chroma:{folder}", embed__max_tokens_total=600)
    refused = command("plan", path, "--json")
    assert refused.code == 5 and "embed.max_tokens_total" in refused.json["error"]["message"]


@follows_hint("If the application made it anew, `reembed run ")
def test_one_that_may_not_move_keeps_all_where_they_are(
    manifest: Path, folder: Path, command: Command
) -> None:
    assert command("run", manifest).code == 0
    with chroma(folder) as client:  # left out
        client.delete_collection("gamma")
    assert command("run", manifest).code == 0
    with chroma(folder) as client:
        plain_collection(client, "gamma", 1)
    assert command("run", manifest).code == 0
    ids = names_in(f"chroma:{folder}")
    with chroma(folder) as client:
        client.delete_collection("beta")
        plain_collection(client, "beta", 7)
    refused = command("swap", manifest, "--yes", "--json")
    assert refused.code == 5 and "beta" in refused.json["error"]["message"]
    now = names_in(f"chroma:{folder}")
    assert {name: now[name] for name in ids if name != "beta"} == {
        name: id for name, id in ids.items() if name != "beta"
    }
    assert f"`reembed run {manifest}` begins again" in refused.json["error"]["hint"]
    again = command("run", manifest, "--swap", "--json")
    assert again.code == 0, again.err
    assert "made anew since the run began, and begun again: 'beta'" in again.json["messages"]
    assert {model_of(folder, name) for name in SIZES} == {"new"}


def test_one_report_with_a_line_each(manifest: Path, command: Command) -> None:
    assert command("run", manifest).code == 0
    shown = command("report", manifest, "--markdown").out
    assert all(f"| {name} |" in shown for name in (*SIZES, "emptied"))
    run = RunDir.latest(Manifest.load(manifest).state_dir)
    assert run is not None
    page = (run.path / "report.html").read_text()
    links = [part.split('"')[0] for part in page.split('href="')[1:]]
    assert len(links) == 4 and all((run.path / link).is_file() for link in links)


def test_names_that_have_moved_go_back_where_one_cannot(
    tmp_path: Path, chroma_server: ChromaServer, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over HTTP there is no transaction of all."""
    names = ["many-a", "many-b", "many-c"]
    with chroma_at(chroma_server.url) as client:
        before = {name: records_of(plain_collection(client, name, 5)) for name in names}
    path = write_group_manifest(
        tmp_path,
        chroma_server.url,
        names,
        swap__kind="rename",
        swap__accept_window=True,
        swap__keep_old="0h",
    )
    assert command("run", path).code == 0
    ids = names_in(chroma_server.url)
    moved = list[str]()

    def fails_at_the_last(store: Store, run: RunDir, action: Action) -> Receipt:
        if len(moved) == 2:
            raise PreflightError("the server refuses it", "Ask the server.")
        moved.append(run.history.require(events.SwapBegun).exchange["live"])
        return finish_move(store, run, action)

    with monkeypatch.context() as patch:
        patch.setattr("reembed.migration.group.move.finish_move", fails_at_the_last)
        refused = command("swap", path, "--yes", "--json")
    assert moved == names[:2]
    assert refused.code == 5 and "the server refuses it" in refused.json["error"]["message"]
    assert "No name has moved: those that had moved are back." in refused.json["error"]["hint"]
    now = names_in(chroma_server.url)
    assert {name: now[name] for name in names} == {name: ids[name] for name in names}
    assert not [name for name in now if name.startswith("many-") and name.endswith("__hold")]

    swapped = command("swap", path, "--yes", "--json")
    assert swapped.code == 0, swapped.err
    assert swapped.json["together"].startswith("the names move one after another")
    now = names_in(chroma_server.url)
    assert not {now[name] for name in names} & {ids[name] for name in names}
    assert command("rollback", path, "--yes").code == 0
    assert command("swap", path, "--yes").code == 0
    assert command("clean", path, "--yes").code == 0
    with chroma_at(chroma_server.url) as client:
        for name in names:
            found = client.get_collection(name, embedding_function=None)
            assert records_of(found) == before[name]
            assert vectors_of(found, ["r1"]).shape == (1, 64)
            client.delete_collection(name)


def test_hooks_are_told_of_collections_that_keep_their_vectors(
    tmp_path: Path, command: Command
) -> None:
    with chroma(tmp_path / "db") as client:
        plain_collection(client, "alpha", 12)
        other = client.create_collection("beta", embedding_function=None)
        other.add(ids=["a"], documents=["a"], embeddings=[vector_of("new", "a")])
    path = write_group_manifest(
        tmp_path, f"chroma:{tmp_path / 'db'}", model="keep", target__metric="cosine",
        swap__before='cat "$REEMBED_MOVES" > told',
    )  # fmt: skip
    done = command("run", path, "--swap", "--json")
    assert done.code == 0, done.out
    moves = json.loads((tmp_path / "told").read_text())
    assert {one["live"]: one["dimensions"] for one in moves} == {"alpha": 48, "beta": 64}
    assert command("rollback", path, "--yes").code == 0


@follows_hint(" --yes` finishes it; then swap again.")
def test_a_way_back_that_has_moved_no_name_is_given_up_by_swap(
    tmp_path: Path, folder: Path, command: Command
) -> None:
    path = write_group_manifest(
        tmp_path, f"chroma:{folder}", source__except="scra*", swap__keep_old="0h",
        swap__before="echo $REEMBED_ACTION stop >> told",
        swap__after="echo $REEMBED_ACTION start >> told",
    )  # fmt: skip
    told, url = tmp_path / "told", f"chroma:{folder}"
    assert work(path, "run(swap=True)") == 0, outcome(path)
    swapped = names_in(url)
    assert work(path, "rollback()", "reembed.migration.group.back:last_look_back", 2) == -9
    assert command("status", path, "--json").json["state"] == "rolling back"
    given_up = command("swap", path, "--yes", "--json")
    assert given_up.code == 0, given_up.out
    assert given_up.json["messages"] == [
        "the way back is given up: every name serves the new collection, as before"
    ]
    assert command("status", path, "--json").json["state"] == "swapped"
    assert names_in(url) == swapped  # nobody waits any more, either
    stopped_and_started = ["swap stop", "swap start", "rollback stop", "swap start"]
    assert told.read_text().splitlines() == stopped_and_started

    # One that has moved the names is only finished.
    assert work(path, "rollback()", "reembed.migration.group.moving:end_move", 1) == -9
    refused = command("swap", path, "--yes", "--json")
    assert refused.code == 5
    assert "'alpha' no longer serves the new collection" in refused.json["error"]["message"]
    assert f"`reembed rollback {path} --yes` finishes it" in refused.json["error"]["hint"]
    assert command("rollback", path, "--yes").code == 0
    assert told.read_text().splitlines() == [
        *stopped_and_started,
        "rollback stop",
        "rollback start",
    ]
    assert command("swap", path, "--yes").code == 0
    assert command("clean", path, "--yes").code == 0


def test_names_that_are_pointers_move_there_and_back(tmp_path: Path, command: Command) -> None:
    url = f"chroma:{tmp_path}/db"
    swap = {"kind": "pointer", "keep_old": "0d"}
    path = write_group_manifest(tmp_path, url, "file-*", swap=swap)
    story = Campaign(url, path, 3, "pointer")
    story.build()

    def finish(call: str, *_: object) -> None:
        step = call.removesuffix("()")
        done = command(step, path, *([] if step == "run" else ["--yes"]), "--json")
        assert done.code == 0, done.out + done.err
        members = command("status", path, "--json").json["members"]
        assert [member["collection"] for member in members] == story.names()

    story.tell(finish)
    assert not story.problems
    pointers = sorted(name for name in names_in(url) if name.endswith("__pointer"))
    assert pointers == [f"{name}__pointer" for name in story.names()]


def test_tables_of_postgres_move_there_and_back(
    tmp_path: Path, docs_url: str, command: Command
) -> None:
    with psycopg.connect(docs_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE notes (LIKE docs INCLUDING ALL)")
        connection.execute("INSERT INTO notes OVERRIDING SYSTEM VALUE SELECT * FROM docs")

        def widths() -> dict[str, set[int]]:
            return {
                name: {
                    width
                    for (width,) in connection.execute(
                        sql.SQL("SELECT DISTINCT vector_dims(embedding) FROM {}").format(
                            sql.Identifier(name)
                        )
                    )
                }
                for name in ("docs", "notes")
            }

        path = write_group_manifest(tmp_path, docs_url, ["docs", "notes"], swap__keep_old="0h")
        ran = command("run", path, "--swap", "--json")
        assert ran.code == 0, ran.err
        assert widths() == {"docs": {64}, "notes": {64}}
        assert command("rollback", path, "--yes").code == 0
        assert widths() == {"docs": {48}, "notes": {48}}
        assert command("swap", path, "--yes").code == 0
        assert command("clean", path, "--yes").code == 0
        assert widths() == {"docs": {64}, "notes": {64}}


def test_a_store_that_rests_between_collections_goes_on_with_each(
    tmp_path: Path, manifest: Path, folder: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    rested: list[int] = []
    rest = chroma_client.rest

    def counted(*given: Any) -> None:
        rest(*given)
        rested.append(1)

    monkeypatch.setattr(chroma_client, "rest", counted)
    monkeypatch.setattr(session, "REST_AFTER", 1)
    for words in (("run",), ("swap", "--yes"), ("rollback", "--yes"), ("swap", "--yes")):
        before = len(rested)
        assert command(words[0], manifest, *words[1:]).code == 0
        assert len(rested) > before
    with chroma(folder) as client:
        for name, count in SIZES.items():
            found = client.get_collection(name, embedding_function=None)
            assert records_of(found).keys() == {f"r{n}" for n in range(count)}
            expected = vector_of("new", sentence(0))
            np.testing.assert_allclose(vectors_of(found, ["r0"])[0], expected, rtol=1e-5)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only Linux lists open files so")
def test_a_store_that_rests_holds_few_files_and_leaves_an_applications_client_alone(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "db"
    with chroma(folder) as client:
        for number in range(30):
            plain_collection(client, f"one-{number}", 3)

    def files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    def read(store: Store) -> None:
        for name in store.catalog.collections():
            info = store.catalog.describe(name)
            assert len(store.reader.fetch(info.id, ["r0", "r2"], vectors=True)) == 2

    store = open_store(f"chroma:{folder}")
    assert store.rest is not None
    least = files()
    read(store)
    assert files() >= least + 60
    store.rest()
    assert files() < least + 10
    read(store)
    with chroma(folder) as client:
        full = files()
        store.rest()
        assert files() > full - 10, "what is in an application's use stays open"
        assert client.get_collection("one-3", embedding_function=None).count() == 3
    store.close()
