"""The way back: nothing written since the swap is lost, and no vector of another model comes in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reembed.errors import PreflightError, SourceChangedError
from reembed.run.journal import Journal
from reembed.stores.chroma import move as chroma_swap
from reembed.sync.difference import find_difference
from tests.support.chroma_data import (
    chroma,
    chroma_at,
    everything_in,
    names_in,
    plain_collection,
    records_of,
    vectors_of,
)
from tests.support.commands import Calls
from tests.support.crash import outcome, work
from tests.support.manifests import migration, run_dir, write_manifest
from tests.support.servers.chroma_server import ChromaServer
from tests.support.texts import sentence, vector_of
from tests.unit.cutover.test_swap import _fails_at, swapped


def docs(client: Any, name: str = "docs") -> Any:
    return client.get_collection(name, embedding_function=None)


def write(collection: Any) -> None:
    """What an application does after the swap, with the new model."""
    collection.add(ids=["added"], documents=["new words"], embeddings=[vector_of("new", "n")])
    collection.update(ids=["r1"], documents=["other words"], embeddings=[vector_of("new", "o")])
    collection.update(ids=["r2"], metadatas=[{"title": "another title"}])
    collection.delete(ids=["r3"])


def check_written(collection: Any) -> None:
    records = records_of(collection)
    assert len(records) == 40
    assert records["added"][0] == "new words"
    assert records["r1"][0] == "other words"
    assert json.loads(records["r2"][1]) == {"title": "another title", "n": 2}
    assert "r3" not in records
    expected = ["new words", "other words", sentence(2), sentence(4)]
    np.testing.assert_allclose(
        vectors_of(collection, ["added", "r1", "r2", "r4"]),
        [vector_of("old", text) for text in expected],
        rtol=1e-5,
    )


@pytest.mark.parametrize("kind", ["transaction", "rename", "pointer"])
def test_writes_go_back_with_the_old_model(
    tmp_path: Path, chroma_server: ChromaServer, kind: str, calls: Calls
) -> None:
    over_http = kind == "rename"
    url = chroma_server.url if over_http else f"chroma:{tmp_path / 'db'}"
    name = "back-and-forth"
    with chroma_at(url) as client:
        plain_collection(client, name)
    old = names_in(url)[name]
    path = write_manifest(
        tmp_path, url, name="back", source__collection=name, swap__kind=kind,
        swap__accept_window=True,
    )  # fmt: skip
    migration(path).run(swap=True)
    new_name = {"pointer": f"{name}__counting_model-new-64"}.get(kind, name)
    with chroma_at(url) as client:
        write(docs(client, new_name))
    calls.clear()
    result = migration(path).rollback()
    assert (result.done, result.caught_up, result.lost) == (True, 4, [])
    assert calls.of("old", "new words") == 1
    assert len(calls.texts("old")) < 40, "vectors whose text is unchanged are kept"
    assert names_in(url)[name] == old
    with chroma_at(url) as client:
        check_written(docs(client, name))
    # and forward again, with what was written on the old side meanwhile
    with chroma_at(url) as client:
        docs(client, name).add(
            ids=["later"], documents=["later"], embeddings=[vector_of("old", "later")]
        )
        expected = records_of(docs(client, name))
    assert migration(path).swap().done
    with chroma_at(url) as client:
        now = docs(client, new_name)
        assert records_of(now) == expected
        assert vectors_of(now, ["added", "later"]).shape == (2, 64)


def test_a_rollback_without_writes_changes_no_record(tmp_path: Path, database: Path) -> None:
    with chroma(database) as client:
        before = records_of(docs(client))
    path = swapped(tmp_path, database)
    result = migration(path).rollback()
    assert (result.caught_up, result.swept) == (0, 0)
    with chroma(database) as client:
        assert records_of(docs(client)) == before
    assert migration(path).status().state == "rolled back"
    assert migration(path).rollback().messages == ["already rolled back"]


def test_an_unknown_old_model_refuses_and_names_the_rows(tmp_path: Path, database: Path) -> None:
    path = swapped(tmp_path, database, source__model=None)
    with chroma(database) as client:
        write(docs(client))
    before = everything_in(database)
    with pytest.raises(PreflightError, match="2 rows written since the swap cannot go back") as e:
        migration(path).rollback()
    assert "added" in e.value.message
    assert "the old model is unknown" in e.value.message
    assert "--accept-loss" in e.value.hint
    assert everything_in(database) == before
    result = migration(path).rollback(accept_loss=True)
    assert sorted(result.lost) == ["added", "r1"]
    assert result.caught_up == 2
    with chroma(database) as client:
        records = records_of(docs(client))
    assert records["r1"][0] == sentence(1), "the old row stays"
    assert json.loads(records["r2"][1])["title"] == "another title"
    assert "added" not in records
    assert "r3" not in records


def test_an_unknown_old_model_does_not_matter_where_texts_are_unchanged(
    tmp_path: Path, database: Path
) -> None:
    path = swapped(tmp_path, database, source__model=None)
    with chroma(database) as client:
        docs(client).update(ids=["r2"], metadatas=[{"title": "another title"}])
        docs(client).delete(ids=["r3"])
    assert migration(path).rollback().caught_up == 2


def test_a_wrong_old_model_puts_no_vector_of_its_own(tmp_path: Path, database: Path) -> None:
    path = swapped(tmp_path, database, source__model__name="counting_model:other")
    with chroma(database) as client:
        write(docs(client))
    before = everything_in(database)
    with pytest.raises(PreflightError, match="is not the model of the old collection"):
        migration(path).rollback()
    assert everything_in(database) == before
    assert sorted(migration(path).rollback(accept_loss=True).lost) == ["added", "r1"]


def test_the_old_model_embeds_what_it_embedded_before(tmp_path: Path, database: Path) -> None:
    """The template is the new model's; the old vectors were made from the documents alone."""
    path = swapped(tmp_path, database, text="{metadata.title}: {document}")
    with chroma(database) as client:
        write(docs(client))
    assert migration(path).rollback().caught_up == 4
    with chroma(database) as client:
        check_written(docs(client))


def test_the_recorded_model_is_the_old_model(tmp_path: Path, database: Path) -> None:
    swapped(tmp_path, database)
    model = {"provider": "python", "name": "counting_model:other"}
    path = write_manifest(
        tmp_path, f"chroma:{database}", name="next", source__model=None, model=model
    )
    migration(path).run(swap=True)
    with chroma(database) as client:
        docs(client).add(ids=["a"], documents=["a b c"], embeddings=[vector_of("other", "a b c")])
    # the function on record finds its module in the manifest's folder
    assert migration(path).rollback().caught_up == 1
    with chroma(database) as client:
        np.testing.assert_allclose(
            vectors_of(docs(client), ["a"])[0], vector_of("new", "a b c"), rtol=1e-5
        )


def test_a_live_collection_that_collapsed_is_refused(tmp_path: Path, database: Path) -> None:
    path = swapped(tmp_path, database)
    with chroma(database) as client:
        docs(client).delete(ids=[f"r{n}" for n in range(30)])
    with pytest.raises(SourceChangedError, match="has lost 30 of its 40"):
        migration(path).rollback()
    assert migration(path).rollback(accept_loss=True).done
    with chroma(database) as client:
        assert docs(client).count() == 40


def test_an_old_collection_that_is_gone_is_refused(tmp_path: Path, database: Path) -> None:
    path = swapped(tmp_path, database)
    parked = next(name for name in names_in(f"chroma:{database}") if "parked" in name)
    with chroma(database) as client:
        client.delete_collection(parked)
    with pytest.raises(PreflightError, match="is gone"):
        migration(path).rollback()


def test_a_rollback_killed_after_the_move_is_finished(
    tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = swapped(tmp_path, database)
    with chroma(database) as client:
        held = docs(client)
        write(held)
        with monkeypatch.context() as patch:
            patch.setattr("reembed.sync.carry_back.WayBack.carry_late", _killed)
            with pytest.raises(KeyboardInterrupt):
                migration(path).rollback()
        held.add(ids=["late"], documents=["late"], embeddings=[vector_of("new", "late")])
        held.update(ids=["r7"], documents=["late too"], embeddings=[vector_of("new", "x")])
        live = docs(client)
        assert "late" not in records_of(live)
        with pytest.raises(PreflightError, match="2 writes that came after the rollback"):
            migration(path).clean()
        with pytest.raises(PreflightError, match="2 writes that came after the rollback"):
            migration(path).swap()
        with pytest.raises(PreflightError, match="2 writes that came after the rollback"):
            migration(path).run()
        live.update(ids=["r7"], documents=["newer"], embeddings=[vector_of("old", "newer")])
        result = migration(path).sweep()
        assert (result.swept, result.conflicts) == (1, ["r7"])
        records = records_of(live)
        assert records["late"][0] == "late"
        assert records["r7"][0] == "newer"
        np.testing.assert_allclose(
            vectors_of(live, ["late"])[0], vector_of("old", "late"), rtol=1e-5
        )
        assert migration(path).sweep().swept == 0
    assert migration(path).clean().done
    assert names_in(f"chroma:{database}").keys() == {"docs"}


def test_a_rollback_killed_between_its_move_and_the_late_writes_is_finished_by_the_next(
    tmp_path: Path, database: Path
) -> None:
    path = swapped(tmp_path, database, swap__after="echo $REEMBED_ACTION >> told")
    with chroma(database) as client:
        write(docs(client))
    assert work(path, "rollback()", "reembed.sync.carry_back:WayBack.carry_late", 1) == -9
    assert migration(path).status().state == "rolled back"
    with chroma(database) as client:
        check_written(docs(client))  # the old one is live, with what was carried ahead of the move
        held = docs(client, run_dir(path).history.shadow_name)
        held.add(ids=["late"], documents=["late"], embeddings=[vector_of("new", "late")])
        held.delete(ids=["r5"])
    assert work(path, "rollback()") == 0, outcome(path)
    assert (outcome(path)["swept"], outcome(path)["messages"]) == (2, [])
    with chroma(database) as client:
        records = records_of(docs(client))
        assert records["late"][0] == "late" and "r5" not in records and len(records) == 40
        np.testing.assert_allclose(
            vectors_of(docs(client), ["late"])[0], vector_of("old", "late"), rtol=1e-5
        )
    assert (tmp_path / "told").read_text().split() == ["swap", "rollback"]
    assert migration(path).rollback().messages == ["already rolled back"]
    assert migration(path).clean().done


@pytest.mark.parametrize("step", ["rollback", "clean"])
def test_a_swap_by_renames_killed_before_the_first_is_given_up_whoever_has_the_name(
    tmp_path: Path, chroma_server: ChromaServer, step: str
) -> None:
    url, name = chroma_server.url, f"given-up-{step}"
    with chroma_at(url) as client:
        plain_collection(client, name)
    path = write_manifest(
        tmp_path, url, source__collection=name, swap__kind="rename", swap__accept_window=True
    )
    assert work(path, "run(swap=True)", "reembed.stores.chroma.move:_rename", 1) == -9
    before = names_in(url)
    with chroma_at(url) as client:
        docs(client, name).modify(name=f"{name}-mine")
        plain_collection(client, name, 3)
    with pytest.raises(SourceChangedError, match="serves a third collection"):
        migration(path).swap()
    given_up = getattr(migration(path), step)(accept_loss=True)
    assert f"the swap is given up: {name!r} has not moved" in given_up.messages
    assert migration(path).clean(accept_loss=True).done
    with chroma_at(url) as client:
        assert docs(client, name).count() == 3
        assert str(docs(client, f"{name}-mine").id) == before[name]


def test_a_swap_killed_in_the_gap_of_its_renames_goes_back(
    tmp_path: Path, chroma_server: ChromaServer
) -> None:
    url, name = chroma_server.url, "in-the-gap"
    with chroma_at(url) as client:
        plain_collection(client, name)
    old = names_in(url)[name]
    path = write_manifest(
        tmp_path, url, source__collection=name, swap__kind="rename", swap__accept_window=True
    )
    assert work(path, "run(swap=True)", "reembed.stores.chroma.move:_take_name", 1) == -9
    assert name not in names_in(url)
    back = migration(path).rollback()
    assert back.done and back.messages == []
    assert names_in(url)[name] == old


def _killed(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("moved", [False, True])
def test_a_rollback_killed_around_the_move_goes_on(
    tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch, moved: bool
) -> None:
    path = swapped(tmp_path, database)
    exchange = chroma_swap.exchange

    def killed(*arguments: Any) -> None:
        if moved:
            exchange(*arguments)
        raise KeyboardInterrupt

    with chroma(database) as client:
        held = docs(client)
        write(held)
        with monkeypatch.context() as patch:
            patch.setattr(chroma_swap, "exchange", killed)
            with pytest.raises(KeyboardInterrupt):
                migration(path).rollback()
        assert migration(path).status().state == "rolling back"
        held.update(ids=["r9"], documents=["meanwhile"], embeddings=[vector_of("new", "x")])
        result = migration(path).run()
        assert result.messages == ["finished the rollback"]
        assert result.state == "rolled back"
        records = records_of(docs(client))
        assert records["r9"][0] == "meanwhile"
        assert records["added"][0] == "new words"


def _killed_before(name: str) -> Any:
    """`Journal.append` that ends at an event of this name."""
    append = Journal.append

    def killed(journal: Journal, event: str, **fields: Any) -> None:
        if event == name:
            raise KeyboardInterrupt
        append(journal, event, **fields)

    return killed


@pytest.mark.parametrize("event", ["carry-done", "writes-held"])
def test_what_a_rollback_that_was_given_up_has_carried_is_no_late_write(
    tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch, event: str
) -> None:
    """It wrote to the old collection; the application stays on the new one and undoes its own
    writes there. A sweep must not bring them back from the old one."""
    path = swapped(tmp_path, database)
    with chroma(database) as client:
        live = docs(client)
        before = records_of(live)
        whole: Any = live.get(ids=["r3", "r4"], include=["documents", "metadatas", "embeddings"])
        live.delete(ids=["r3"])
        live.update(ids=["r4"], documents=["other"], embeddings=[vector_of("new", "other")])
        with monkeypatch.context() as patch:
            patch.setattr(Journal, "append", _killed_before(event))
            with pytest.raises(KeyboardInterrupt):
                migration(path).rollback()
        assert migration(path).status().state == "swapped"
        live.delete(ids=["r4"])
        live.add(**{key: whole[key] for key in ("ids", "documents", "metadatas", "embeddings")})
        assert records_of(live) == before
        assert migration(path).sweep().swept == 0
        assert records_of(live) == before
        assert migration(path).rollback().done
        assert records_of(docs(client)) == before


def test_late_rows_that_cannot_go_back_stay_and_are_told(tmp_path: Path, database: Path) -> None:
    path = swapped(tmp_path, database, source__model=None)
    with chroma(database) as client:
        held = docs(client)
        migration(path).rollback()
        held.add(ids=["late"], documents=["late"], embeddings=[vector_of("new", "late")])
        result = migration(path).sweep()
    assert result.swept == 0
    assert "1 rows" in result.messages[0]
    with pytest.raises(PreflightError, match="1 writes"):
        migration(path).clean()


def test_a_run_after_a_rollback_begins_from_the_old_collection(
    tmp_path: Path, database: Path
) -> None:
    path = swapped(tmp_path, database)
    with chroma(database) as client:
        write(docs(client))
    migration(path).rollback()
    first = run_dir(path).run_id
    again = migration(path).run(swap=True)
    assert (again.run, again.state, again.loaded) == (first, "swapped", 40)
    assert migration(path).rollback().done
    assert migration(path).clean().done
    fresh = migration(path).run()
    assert fresh.run != first
    assert fresh.state == "verified"


def test_the_difference_is_found_once_for_the_way_back(
    tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = swapped(tmp_path, database)
    monkeypatch.setattr("reembed.sync.carry_back.find_difference", _fails_at(3, find_difference))
    assert migration(path).rollback().done  # once before the move and once after it
