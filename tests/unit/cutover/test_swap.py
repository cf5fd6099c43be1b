"""Moving the live name: what is carried, what is refused, what a hook is told."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from reembed import live
from reembed.cutover import move
from reembed.errors import (
    GateError,
    ModelChangedError,
    PreflightError,
    SourceChangedError,
    UnreachableError,
    UsageError,
)
from reembed.stores.chroma import move as chroma_swap
from reembed.stores.chroma.reader import ChromaReader
from reembed.stores.chroma.writer import ChromaWriter
from reembed.stores.registry import open_store
from tests.support.chroma_data import (
    chroma,
    chroma_at,
    everything_in,
    names_in,
    plain_collection,
    records_of,
    vectors_of,
)
from tests.support.commands import Calls, tree
from tests.support.manifests import migration, run_dir, write_manifest
from tests.support.servers.chroma_server import ChromaServer
from tests.support.stores import is_pointer
from tests.support.texts import sentence, vector_of


def write(collection: Any) -> None:
    """What an application does in a minute: add, change a text, change metadata only, delete."""
    collection.add(
        ids=["added"], documents=["quite new"], embeddings=[vector_of("old", "quite new")]
    )
    collection.update(
        ids=["r1"], documents=["another text"], embeddings=[vector_of("old", "another text")]
    )
    collection.update(ids=["r2"], metadatas=[{"title": "another title"}])
    collection.delete(ids=["r3"])


def swapped(folder: Path, database: Path, **changes: Any) -> Path:
    path = write_manifest(folder, f"chroma:{database}", **changes)
    assert migration(path).run(swap=True).state == "swapped"
    return path


# The kinds


def test_transaction_is_taken_on_a_local_path(tmp_path: Path, database: Path) -> None:
    before = names_in(f"chroma:{database}")["docs"]
    path = write_manifest(tmp_path, f"chroma:{database}")
    result = migration(path).run(swap=True)
    assert result.swap is not None
    assert result.swap.kind == "transaction"
    assert result.swap.gap_seconds is None
    names = names_in(f"chroma:{database}")
    assert names[result.swap.parked] == before
    assert names["docs"] != before
    with chroma(database) as client:
        new = client.get_collection("docs", embedding_function=None)
        assert records_of(new) == records_of(
            client.get_collection(result.swap.parked, embedding_function=None)
        )
        got = vectors_of(new, ["r7"])[0]
    expected = vector_of("new", sentence(7))
    assert got == pytest.approx(expected, rel=1e-5)


def test_rename_must_be_accepted_and_tells_its_gap(
    tmp_path: Path, chroma_server: ChromaServer
) -> None:
    name = "rename-docs"
    with chroma_at(chroma_server.url) as client:
        plain_collection(client, name)
    settings: dict[str, Any] = {"source__collection": name, "name": name}
    path = write_manifest(tmp_path, chroma_server.url, **settings)
    with pytest.raises(PreflightError, match="cannot be moved here without a gap") as caught:
        migration(path).run()
    for way in ("pointer", "accept_window", "data_dir"):
        assert way in caught.value.hint
    path = write_manifest(tmp_path, chroma_server.url, **settings, swap__accept_window=True)
    result = migration(path).run(swap=True)
    assert result.swap is not None
    assert result.swap.kind == "rename"
    assert result.swap.gap_seconds is not None
    assert 0 < result.swap.gap_seconds < 2
    assert {name, result.swap.parked} <= set(names_in(chroma_server.url))


def test_a_server_with_its_folder_at_hand_swaps_by_transaction(
    tmp_path: Path, chroma_server: ChromaServer
) -> None:
    name = "folder-docs"
    with chroma_at(chroma_server.url) as client:
        plain_collection(client, name)
    path = write_manifest(
        tmp_path, chroma_server.url, name=name, source__collection=name,
        source__data_dir=str(chroma_server.folder),
    )  # fmt: skip
    result = migration(path).run(swap=True)
    assert result.swap is not None
    assert result.swap.kind == "transaction"
    assert migration(path).rollback().done


@pytest.mark.parametrize("own_name", [False, True])
def test_a_pointer_is_followed_with_the_model_that_fits(
    tmp_path: Path, database: Path, calls: Calls, own_name: bool
) -> None:
    name = "docs-live" if own_name else "docs"
    url = f"chroma:{database}"
    path = write_manifest(tmp_path, url, swap__kind="pointer", swap__live=name)
    result = migration(path).run(swap=True)
    assert result.swap is not None
    assert result.swap.kind == "pointer"
    store = open_store(url)
    assert is_pointer(store.cutover, name)
    assert store.resolve(name).dimensions == 64
    store.close()
    with live.open(url, name) as opened:
        assert opened.collection.get_model().dimension == 64
    migration(path).rollback()
    store = open_store(url)
    assert store.resolve(name).dimensions == 48
    store.close()


def test_a_pointer_stays_one_in_the_next_migration(tmp_path: Path, database: Path) -> None:
    url = f"chroma:{database}"
    swapped(tmp_path, database, swap__kind="pointer")
    path = write_manifest(
        tmp_path, url, name="back", source__model__name="counting_model:new",
        model={"provider": "python", "name": "counting_model:other"},
    )  # fmt: skip
    result = migration(path).run(swap=True)
    assert result.swap is not None
    assert result.swap.kind == "pointer"
    with live.open(url, "docs") as opened:
        assert opened.collection.get_model().dimension == 48
        assert opened.count() == 40


def test_config_builds_in_another_store_and_prints_the_change(
    tmp_path: Path, database: Path
) -> None:
    with chroma(tmp_path / "other") as client:
        plain_collection(client, "unrelated", 3)
    target = f"chroma:{tmp_path / 'other'}"
    path = write_manifest(
        tmp_path, f"chroma:{database}", target__url=target, target__collection="docs"
    )
    before = names_in(f"chroma:{database}")
    result = migration(path).run(swap=True)
    assert result.swap is not None
    assert result.swap.kind == "config"
    assert any(target in text and "'docs'" in text for text in result.swap.messages)
    assert names_in(f"chroma:{database}") == before
    with chroma(database) as client:
        write(client.get_collection("docs", embedding_function=None))
        source = records_of(client.get_collection("docs", embedding_function=None))
    assert migration(path).sweep().swept == 4
    with chroma(tmp_path / "other") as client:
        moved = client.get_collection("docs", embedding_function=None)
        assert records_of(moved) == source
        moved.add(ids=["later"], documents=["later"], embeddings=[vector_of("new", "later")])
    with pytest.raises(PreflightError, match="which collection the application reads"):
        migration(path).clean()
    assert migration(path).rollback().caught_up == 1
    with chroma(database) as client:
        assert records_of(client.get_collection("docs", embedding_function=None)).keys() == {
            *source, "later"
        }  # fmt: skip
    assert migration(path).clean().done
    assert names_in(target).keys() == {"unrelated"}


# Before the swap


@pytest.mark.parametrize("over_http", [False, True])
def test_writes_before_the_swap_are_carried(
    tmp_path: Path, chroma_server: ChromaServer, over_http: bool, calls: Calls
) -> None:
    url = chroma_server.url if over_http else f"chroma:{tmp_path / 'db'}"
    name = "written-to"
    with chroma_at(url) as client:
        plain_collection(client, name)
    path = write_manifest(
        tmp_path, url, name="written", source__collection=name, swap__accept_window=True
    )
    assert migration(path).run().state == "verified"
    with chroma_at(url) as client:
        collection = client.get_collection(name, embedding_function=None)
        write(collection)
        expected = records_of(collection)
    calls.clear()
    result = migration(path).swap()
    assert result.caught_up == 4
    assert calls.of("new", "quite new") == 1
    assert calls.of("new", sentence(2)) == 0, "a vector whose text is unchanged is not paid again"
    with chroma_at(url) as client:
        collection = client.get_collection(name, embedding_function=None)
        assert records_of(collection) == expected
        assert vectors_of(collection, ["added"])[0] @ vector_of("new", "quite new") > 0


def test_a_source_that_lost_most_records_is_refused(tmp_path: Path, database: Path) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}")
    migration(path).run()
    with chroma(database) as client:
        collection = client.get_collection("docs", embedding_function=None)
        collection.delete(ids=[f"r{n}" for n in range(30)])
    with pytest.raises(SourceChangedError, match="has lost 30 of its 40 records"):
        migration(path).swap()
    assert len(names_in(f"chroma:{database}")) == 2


def test_a_small_source_that_was_emptied_is_refused(tmp_path: Path) -> None:
    database = tmp_path / "small"
    with chroma(database) as client:
        plain_collection(client, count=5)
    path = write_manifest(tmp_path, f"chroma:{database}")
    migration(path).run()
    with chroma(database) as client:
        collection = client.get_collection("docs", embedding_function=None)
        collection.delete(ids=[f"r{n}" for n in range(5)])
    with pytest.raises(SourceChangedError, match="has lost 5 of its 5"):
        migration(path).swap()


def test_a_source_that_was_replaced_is_refused(tmp_path: Path, database: Path) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}")
    migration(path).run()
    with chroma(database) as client:
        client.delete_collection("docs")
        plain_collection(client)
    before = names_in(f"chroma:{database}")
    for step in (migration(path).swap, migration(path).run):
        with pytest.raises(SourceChangedError, match="another collection"):
            step()
    assert names_in(f"chroma:{database}") == before


def test_a_shadow_that_is_gone_is_refused(tmp_path: Path, database: Path) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}", target__collection="shadow")
    migration(path).run()
    with chroma(database) as client:
        client.delete_collection("shadow")
    before = names_in(f"chroma:{database}")
    with pytest.raises(SourceChangedError, match="gone"):
        migration(path).swap()
    assert names_in(f"chroma:{database}") == before


def test_no_swap_without_a_verdict(tmp_path: Path, database: Path) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}")
    with pytest.raises(UsageError, match="no run yet"):
        migration(path).swap()
    migration(path).run(until="load")
    with pytest.raises(GateError, match="no verdict"):
        migration(path).swap()


def test_no_swap_with_a_failing_verdict(tmp_path: Path, database: Path) -> None:
    with chroma(database) as client:
        collection = client.get_collection("docs", embedding_function=None)
        collection.add(ids=["mute"], embeddings=[vector_of("old", "x")])
    path = write_manifest(tmp_path, f"chroma:{database}", verify__allow_quarantined=1)
    migration(path).run(until="export")
    path = write_manifest(tmp_path, f"chroma:{database}")
    result = migration(path).run(swap=True)
    assert (result.state, result.exit_code) == ("failed", 4)
    assert result.error is not None
    assert "1 quarantined, 0 allowed" in result.error.message
    with pytest.raises(GateError, match="1 quarantined"):
        migration(path).swap()
    assert names_in(f"chroma:{database}").keys() == {"docs", "docs__counting_model-new-64"}
    path = write_manifest(tmp_path, f"chroma:{database}", verify__allow_quarantined=1)
    with pytest.raises(GateError):
        migration(path).swap()  # the verdict that counts is the one that was reached
    assert migration(path).verify().exit_code == 3
    assert migration(path).swap().done


def test_a_model_that_changed_is_not_swapped_in(
    tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}")
    migration(path).run(until="embed")
    monkeypatch.setenv("REEMBED_TEST_SHIFT", "9")
    with pytest.raises(ModelChangedError, match="other vectors"):
        migration(path).run()
    monkeypatch.delenv("REEMBED_TEST_SHIFT")
    migration(path).run()
    monkeypatch.setenv("REEMBED_TEST_SHIFT", "9")
    with pytest.raises(ModelChangedError):
        migration(path).swap()
    assert len(names_in(f"chroma:{database}")) == 2


@pytest.mark.parametrize(
    ("target", "message"), [("r-docs", "not the source"), ("no-such", "is not a collection")]
)
def test_a_live_name_that_leads_elsewhere_is_refused(
    tmp_path: Path, database: Path, target: str, message: str
) -> None:
    with chroma(database) as client:
        plain_collection(client, "r-docs", 3)
    path = write_manifest(tmp_path, f"chroma:{database}", swap__live=target)
    plan = migration(path).plan()
    assert any(message in blocker.message for blocker in plan.blockers)
    with pytest.raises(PreflightError, match=message):
        migration(path).run()


def test_a_partial_migration_is_not_swapped_in(tmp_path: Path, database: Path) -> None:
    where = {"n": {"$lt": 10}}
    path = write_manifest(tmp_path, f"chroma:{database}", source__where=where)
    with pytest.raises(PreflightError, match="would hide the rest"):
        migration(path).run()
    path = write_manifest(tmp_path, f"chroma:{database}", source__where=where, swap__kind="config")
    result = migration(path).run(swap=True)
    assert (result.exported, result.loaded, result.state) == (10, 10, "swapped")
    assert result.swap is not None
    assert result.swap.kind == "config"


def test_dry_runs_change_nothing(tmp_path: Path, database: Path) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}", swap__keep_old="0d")
    migration(path).run()

    def unchanged(step: Any, action: str) -> None:
        before = everything_in(database), tree(tmp_path / ".reembed")
        result = step(dry_run=True)
        assert (result.action, result.done) == (action, False)
        assert (everything_in(database), tree(tmp_path / ".reembed")) == before

    unchanged(migration(path).swap, "swap")
    unchanged(migration(path).clean, "clean")
    migration(path).swap()
    unchanged(migration(path).rollback, "rollback")
    unchanged(migration(path).clean, "clean")


def test_a_second_swap_says_so(tmp_path: Path, database: Path) -> None:
    path = swapped(tmp_path, database)
    before = names_in(f"chroma:{database}")
    again = migration(path).swap()
    assert again.messages == ["already swapped"]
    assert migration(path).run().messages == ["already swapped; nothing to do"]
    assert names_in(f"chroma:{database}") == before


# Hooks


def hook(file: Path, line: str = "") -> str:
    return f"env | grep ^REEMBED_ | grep -v ^REEMBED_TEST >> {file}; {line}"


def test_hooks_are_told_what_moves(tmp_path: Path, database: Path) -> None:
    before, after = tmp_path / "before.txt", tmp_path / "after.txt"
    path = swapped(
        tmp_path, database, swap__before=hook(before), swap__after=hook(after, "echo noise")
    )
    run = run_dir(path).run_id
    told = dict(line.split("=", 1) for line in before.read_text().splitlines())
    assert told == {
        "REEMBED_ACTION": "swap", "REEMBED_NAME": "move", "REEMBED_RUN": run,
        "REEMBED_LIVE": "docs", "REEMBED_COLLECTION": "docs__counting_model-new-64",
        "REEMBED_PARKED": f"docs__parked-{run}", "REEMBED_URL": f"chroma:{database}",
        "REEMBED_PROVIDER": "python", "REEMBED_MODEL": "counting_model:new",
        "REEMBED_DIMENSIONS": "64",
    }  # fmt: skip
    assert sorted(after.read_text().splitlines()) == sorted(before.read_text().splitlines())
    migration(path).rollback()
    assert "REEMBED_ACTION=rollback" in before.read_text()
    assert "REEMBED_ACTION=rollback" in after.read_text()


def test_a_before_hook_that_fails_stops_the_swap(tmp_path: Path, database: Path) -> None:
    path = write_manifest(
        tmp_path, f"chroma:{database}", swap__before="echo the application is away; exit 3"
    )
    migration(path).run()
    before = names_in(f"chroma:{database}")
    with pytest.raises(PreflightError, match="exit code 3: the application is away"):
        migration(path).swap()
    assert names_in(f"chroma:{database}") == before
    assert migration(path).status().state == "verified"
    path = write_manifest(tmp_path, f"chroma:{database}")
    assert migration(path).swap().done


def test_an_after_hook_that_fails_is_told_with_the_way_back(tmp_path: Path, database: Path) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}", swap__after="echo oh no >&2; false")
    result = migration(path).run(swap=True)
    assert result.state == "swapped"
    assert result.swap is not None
    (message,) = [one for one in result.swap.messages if "hook" in one or "oh no" in one]
    assert "oh no" in message
    assert "reembed rollback" in message


def test_writes_that_the_before_hook_lets_in_are_carried(tmp_path: Path, database: Path) -> None:
    writer = tmp_path / "writer.py"
    writer.write_text(
        "import chromadb\n"
        f"docs = chromadb.PersistentClient({str(database)!r}).get_collection('docs')\n"
        "docs.add(ids=['hooked'], documents=['hooked in'], embeddings=[[1.0] * 48])\n"
    )
    path = write_manifest(tmp_path, f"chroma:{database}", swap__before=f"{sys.executable} {writer}")
    result = migration(path).run(swap=True)
    assert result.swap is not None
    assert result.swap.caught_up == 1
    with chroma(database) as client:
        assert "hooked" in records_of(client.get_collection("docs", embedding_function=None))


# After the swap: sweep and clean


def test_late_writes_are_swept_and_newer_rows_left_alone(tmp_path: Path, database: Path) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}")
    migration(path).run()
    with chroma(database) as client:
        held = client.get_collection("docs", embedding_function=None)
        migration(path).swap()
        write(held)  # a handle keeps writing to the old collection
        held.update(ids=["r5"], documents=["old side"], embeddings=[vector_of("old", "x")])
        now = client.get_collection("docs", embedding_function=None)
        now.update(ids=["r5"], documents=["new side"], embeddings=[vector_of("new", "x")])
        now.add(ids=["fresh"], documents=["fresh"], embeddings=[vector_of("new", "fresh")])
        result = migration(path).sweep()
        assert (result.swept, result.conflicts) == (4, ["r5"])
        records = records_of(now)
        assert records["added"][0] == "quite new"
        assert records["r1"][0] == "another text"
        assert json.loads(records["r2"][1])["title"] == "another title"
        assert "r3" not in records
        assert records["r5"][0] == "new side"
        assert "fresh" in records
        assert vectors_of(now, ["added"]).shape == (1, 64)
        assert migration(path).sweep().swept == 0


def test_clean_waits_for_keep_old_and_for_late_writes(tmp_path: Path, database: Path) -> None:
    path = swapped(tmp_path, database)
    parked = next(name for name in names_in(f"chroma:{database}") if "parked" in name)
    with pytest.raises(PreflightError, match="is kept until"):
        migration(path).clean()
    path = write_manifest(tmp_path, f"chroma:{database}", swap__keep_old="0d")
    with chroma(database) as client:
        write(client.get_collection(parked, embedding_function=None))
    with pytest.raises(PreflightError, match="4 late writes"):
        migration(path).clean()
    assert parked in names_in(f"chroma:{database}")
    migration(path).sweep()
    result = migration(path).clean()
    assert result.messages == ["the old collection is deleted"]
    assert names_in(f"chroma:{database}").keys() == {"docs"}
    assert migration(path).clean().messages == ["already cleaned"]
    assert migration(path).run().messages == ["already swapped; nothing to do"]
    with pytest.raises(UsageError, match="is cleaned"):
        migration(path).verify()
    with pytest.raises(UsageError, match="is cleaned, not swapped"):
        migration(path).rollback()


def test_clean_deletes_by_object_id_and_never_by_name(tmp_path: Path, database: Path) -> None:
    path = swapped(tmp_path, database, swap__keep_old="0d")
    parked = next(name for name in names_in(f"chroma:{database}") if "parked" in name)
    with chroma(database) as client:
        client.get_collection(parked, embedding_function=None).modify(name="elsewhere")
        plain_collection(client, parked, 3)
    migration(path).clean()
    assert names_in(f"chroma:{database}").keys() == {"docs", parked}


def test_clean_refuses_when_the_live_name_leads_elsewhere(tmp_path: Path, database: Path) -> None:
    path = swapped(tmp_path, database, swap__keep_old="0d")
    with chroma(database) as client:
        client.get_collection("docs", embedding_function=None).modify(name="aside")
        plain_collection(client, "docs", 3)
    before = names_in(f"chroma:{database}")
    with pytest.raises(SourceChangedError, match="serves a third collection"):
        migration(path).clean()
    assert names_in(f"chroma:{database}") == before


@pytest.mark.parametrize("kind", ["auto", "pointer"])
def test_clean_gives_up_a_run_that_is_not_swapped(
    tmp_path: Path, database: Path, kind: str
) -> None:
    path = write_manifest(
        tmp_path, f"chroma:{database}", swap__kind=kind,
        swap__live="docs" if kind == "auto" else "docs-live",
    )  # fmt: skip
    first = migration(path).run(until="load").run
    result = migration(path).clean()
    assert "the shadow is deleted" in result.messages[0]
    assert names_in(f"chroma:{database}").keys() == {"docs"}
    with pytest.raises(UsageError, match="cleaned"):
        migration(path).swap()
    again = migration(path).run()
    assert again.run != first
    assert again.state == "verified"


@pytest.mark.parametrize("swap", [True, False])
def test_what_a_killed_clean_has_deleted_is_nobodys_deletion(
    tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch, swap: bool
) -> None:
    """Over HTTP a collection is deleted record by record before it goes."""
    path = swapped(tmp_path, database, swap__keep_old="0d")
    if not swap:
        migration(path).rollback()
    with chroma(database) as client:
        live = records_of(client.get_collection("docs", embedding_function=None))

    def half(writer: ChromaWriter, id: str) -> None:
        page = next(ChromaReader(writer._database).list_ids(id)).to_pylist()
        writer.delete(id, page[:9])
        raise UnreachableError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(ChromaWriter, "drop", half)
        with pytest.raises(UnreachableError):
            migration(path).clean()
    one = migration(path)
    assert (one.status().state, one.status().next) == ("cleaning", f"reembed clean {path} --yes")
    for command in (one.sweep, one.rollback, one.swap, one.run, one.verify):
        with pytest.raises(UsageError, match="is cleaning") as refusal:
            command()
        assert f"`reembed clean {path} --yes`" in refusal.value.hint
    assert "is deleted" in one.clean().messages[0]
    assert one.status().state == "cleaned"
    with chroma(database) as client:
        assert records_of(client.get_collection("docs", embedding_function=None)) == live
        assert {found.name for found in client.list_collections()} == {"docs"}


def test_clean_without_a_shadow(tmp_path: Path, database: Path) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}")
    with pytest.raises(UsageError, match="no run yet"):
        migration(path).clean()
    migration(path).run(until="export")
    assert migration(path).clean().messages == ["there was no shadow to delete"]


# An intruder in the gap of a rename


def test_an_intruder_in_the_gap_is_merged(
    tmp_path: Path, chroma_server: ChromaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "gap-docs"
    with chroma_at(chroma_server.url) as client:
        plain_collection(client, name)
    path = write_manifest(
        tmp_path, chroma_server.url, name=name, source__collection=name, swap__accept_window=True
    )
    migration(path).run()
    take = chroma_swap._take_name

    def intrude(client: Any, incoming: Any, move: Any) -> Any:
        made = client.get_or_create_collection(name, embedding_function=None)
        made.add(ids=["in the gap"], documents=["in the gap"], embeddings=[vector_of("old", "x")])
        return take(client, incoming, move)

    with monkeypatch.context() as patch:
        patch.setattr(chroma_swap, "_take_name", intrude)
        # killed before it could merge: the next call must
        patch.setattr("reembed.sync.follow.without_conflicts", _killed)
        with pytest.raises(KeyboardInterrupt):
            migration(path).swap()
    result = migration(path).run()
    assert result.messages == ["finished the swap"]
    assert result.swap is not None
    assert any("1 records of it were merged" in message for message in result.swap.messages)
    with chroma_at(chroma_server.url) as client:
        records = records_of(client.get_collection(name, embedding_function=None))
        assert len(records) == 41
        assert records["in the gap"][0] == "in the gap"
        assert migration(path).sweep().swept == 0
        assert records_of(client.get_collection(name, embedding_function=None)) == records
        assert migration(path).rollback().caught_up == 1
        assert records_of(client.get_collection(name, embedding_function=None)) == records


def _killed(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_a_swap_stopped_after_the_move_is_finished_by_the_next_call(
    tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "after.txt"
    path = write_manifest(tmp_path, f"chroma:{database}", swap__after=hook(told))
    migration(path).run()
    with chroma(database) as client:
        held = client.get_collection("docs", embedding_function=None)
        with monkeypatch.context() as patch:
            patch.setattr("reembed.sync.follow.find_late", _killed)
            with pytest.raises(KeyboardInterrupt):
                migration(path).swap()
        assert migration(path).status().state == "swapped"
        write(held)
        with pytest.raises(UsageError, match="not finished"):
            migration(path).clean()
        result = migration(path).swap()
        assert result.swept == 4
        assert "REEMBED_ACTION=swap" in told.read_text()
        assert "added" in records_of(client.get_collection("docs", embedding_function=None))


def _fails_at(call: int, function: Any) -> Any:
    count = 0

    def wrapped(*arguments: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        if count == call:
            raise KeyboardInterrupt
        return function(*arguments, **options)

    return wrapped


def test_if_changed_does_nothing_unless_something_changed(
    tmp_path: Path, database: Path, calls: Calls
) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}")
    first = migration(path).run(if_changed=True)
    assert not first.unchanged
    calls.clear()
    start = time.perf_counter()
    again = migration(path).run(if_changed=True)
    assert again.unchanged
    assert (again.run, again.exit_code) == (first.run, 0)
    assert calls.texts("new") == []
    assert time.perf_counter() - start < 10
    with chroma(database) as client:
        write(client.get_collection("docs", embedding_function=None))
    changed = migration(path).run(if_changed=True)
    assert not changed.unchanged
    assert (changed.run, changed.state, changed.loaded) == (first.run, "verified", 40)


def test_a_pointer_names_the_model_whole(tmp_path: Path, database: Path) -> None:
    """Its readers open the model from it: where the key comes from and how to call it included."""
    model = {
        "provider": "python",
        "name": "counting_model:new",
        "dimensions": 64,
        "api_key_env": "SOME_KEY",
        "options": {"batch_items": 7},
    }
    path = write_manifest(tmp_path, f"chroma:{database}", model=model, swap__kind="pointer")
    moving = migration(path)
    moving.run()
    moving.swap()
    with chroma(database) as client:
        pointer = client.get_collection("docs__pointer", embedding_function=None)
        assert json.loads(str((pointer.metadata or {})["model"])) == model
    moving.rollback()
    with chroma(database) as client:
        pointer = client.get_collection("docs__pointer", embedding_function=None)
        old = {"provider": "python", "name": "counting_model:old"}
        assert json.loads(str((pointer.metadata or {})["model"])) == old


@pytest.mark.parametrize(
    ("before", "found", "worked"),
    [(0, [], False), (10, [], False), (400, [90, 15, 3], True), (400, [0], False),
     (400, [310], True), (400, [200, 190], True), (11, [11], True)],
)  # fmt: skip
def test_what_came_meanwhile_is_carried_until_it_is_little_or_no_less(
    before: int, found: list[int], worked: bool
) -> None:
    rest = iter(found)
    assert move.carry_down(lambda: next(rest), before) == worked
    assert list(rest) == []
