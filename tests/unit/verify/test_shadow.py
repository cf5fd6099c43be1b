"""A verdict licenses what it saw: the shadow is looked at once more before the name moves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reembed.errors import LossError, SourceChangedError
from reembed.run import events
from reembed.run.journal import Journal
from tests.support.chroma_data import chroma, records_of, vectors_of
from tests.support.following import follows_hint
from tests.support.manifests import migration, run_dir, write_manifest
from tests.support.texts import sentence, vector_of

SHADOW = "docs__counting_model-new-64"


def named(client: Any, name: str) -> Any:
    return client.get_collection(name, embedding_function=None)


def reverse(collection: Any, share: int = 1) -> None:
    """Give every share-th record the vector of another one."""
    ids = sorted(collection.get(include=[])["ids"])[::share]
    vectors = vectors_of(collection, ids)
    collection.update(ids=ids, embeddings=vectors[::-1].tolist())


def meddle(database: Path, how: Callable[[Any], Any], name: str = SHADOW) -> None:
    with chroma(database) as client:
        how(named(client, name))


def check_live(database: Path) -> None:
    """All 40 records, each with the new vector of its own text."""
    with chroma(database) as client:
        docs = named(client, "docs")
        found = records_of(docs)
        assert {id: row[0] for id, row in found.items()} == {
            f"r{number}": sentence(number) for number in range(40)
        }
        ids = list(found)
        expected = [vector_of("new", str(found[id][0])) for id in ids]
        np.testing.assert_allclose(vectors_of(docs, ids), expected, rtol=1e-5)


def delete_three(collection: Any) -> None:
    collection.delete(ids=["r1", "r2", "r3"])


def empty(collection: Any) -> None:
    collection.delete(ids=collection.get(include=[])["ids"])


def test_what_the_shadow_lost_or_got_wrong_is_put_back_before_the_move(
    tmp_path: Path, database: Path
) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}")
    one = migration(path)
    one.run()
    meddle(database, delete_three)
    meddle(database, lambda collection: reverse(collection, 2))
    lacked, off, *_ = one.swap().messages
    assert "3 records that the shadow lacked" in lacked
    assert "verified again" in off and "not as made" in off
    check_live(database)
    one.rollback()
    one.run()
    meddle(database, empty)
    assert "40 records" in one.swap().messages[0]
    check_live(database)
    assert len(run_dir(path).history.all(events.ShadowMended)) == 2


@follows_hint("Write what you want to keep of them to the live collection")
@pytest.mark.parametrize("again", [False, True])
def test_what_somebody_else_wrote_to_the_shadow_is_not_overwritten_unseen(
    tmp_path: Path, database: Path, again: bool
) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}")
    one = migration(path)
    one.run(swap=again)
    if again:
        one.rollback()
        one.run()

    def write(collection: Any) -> None:
        collection.add(ids=["stray"], documents=["stray"], embeddings=[vector_of("new", "stray")])
        collection.update(ids=["r7"], documents=["other"], embeddings=[vector_of("new", "other")])

    meddle(database, write)
    with pytest.raises(LossError, match="2 records that somebody else wrote or changed") as caught:
        one.swap()
    assert "r7, stray" in caught.value.message and "--accept-loss" in caught.value.hint
    message, *_ = one.swap(accept_loss=True).messages
    assert "2 that somebody else had written" in message
    check_live(database)


@pytest.mark.parametrize("how", [empty, reverse])
def test_a_swap_killed_before_the_move_looks_again(
    tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch, how: Any
) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}")
    migration(path).run()
    append = Journal.append

    def killed(journal: Journal, event: str, **fields: Any) -> None:
        append(journal, event, **fields)
        if event == "swap-begun":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", killed)
        with pytest.raises(KeyboardInterrupt):
            migration(path).swap()
    assert migration(path).status().state == "swapping"
    meddle(database, how)
    assert migration(path).swap().done
    check_live(database)


def test_a_run_mends_the_shadow_that_its_verdict_refused(tmp_path: Path, database: Path) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}")
    migration(path).run(until="load")
    meddle(database, empty)
    assert migration(path).run().exit_code == 4
    assert migration(path).run(swap=True).state == "swapped"
    check_live(database)


@follows_hint("Run the same command again: it compares the shadow, and repairs it.")
def test_records_that_go_while_writers_wait_stop_the_move(
    tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}")
    migration(path).run()
    with monkeypatch.context() as patch:
        patch.setattr("reembed.cutover.swap.check_deltas", lambda _: meddle(database, delete_three))
        with pytest.raises(SourceChangedError, match="37 records instead of 40"):
            migration(path).swap()
    assert migration(path).swap().done
    check_live(database)
