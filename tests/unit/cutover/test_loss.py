"""No command makes the live name emptier, or deletes a last copy, without a person's word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reembed.errors import LossError, ReembedError, SourceChangedError, UnreachableError
from reembed.report.results import RunResult, SwapResult
from reembed.run import events
from reembed.run.loss import Loss
from reembed.stores.chroma.writer import ChromaWriter
from tests.support.chroma_data import chroma, names_in, plain_collection, records_of
from tests.support.following import follows_hint
from tests.support.manifests import migration, run_dir, write_manifest
from tests.support.texts import vector_of
from tests.unit.cutover.test_swap import swapped


def docs(client: Any, name: str = "docs") -> Any:
    return client.get_collection(name, embedding_function=None)


def parked(database: Path) -> str:
    return next(name for name in names_in(f"chroma:{database}") if "parked" in name)


def ids(first: int, last: int) -> list[str]:
    return [f"r{number}" for number in range(first, last)]


def empty(database: Path, name: str, left: int = 0) -> None:
    """Delete all records but the first `left`, as a retention job does."""
    with chroma(database) as client:
        found = docs(client, name)
        gone = [id for id in found.get(include=[])["ids"] if id not in ids(0, left)]
        found.delete(ids=gone)


def live(database: Path) -> set[str]:
    with chroma(database) as client:
        return set(docs(client).get(include=[])["ids"])


def refused(call: Any, *said: str) -> LossError:
    with pytest.raises(LossError) as caught:
        call()
    assert (caught.value.exit_code, caught.value.kind) == (5, "loss")
    for words in said:
        assert words in caught.value.message + caught.value.hint, caught.value.message
    assert "--accept-loss" in caught.value.hint
    return caught.value


def journalled(path: Path) -> list[events.LossAccepted]:
    return run_dir(path).history.all(events.LossAccepted)


@pytest.mark.parametrize(
    ("had", "lost", "mass"),
    [(3, 1, False), (3, 2, True), (1, 1, True), (2, 1, False), (300, 150, False),
     (300, 151, True), (0, 0, False), (5, 0, False)],
)  # fmt: skip
def test_a_mass_is_all_or_more_than_half(had: int, lost: int, mass: bool) -> None:
    assert Loss("docs", had, lost).is_mass is mass


@follows_hint("applies them to the live collection first; if not, `reembed clean")
@follows_hint("if not, there is nothing to do, and `reembed clean --accept-loss` deletes")
@pytest.mark.parametrize("left", [0, 5])
def test_deletions_in_the_parked_collection_never_empty_the_live_one(
    tmp_path: Path, database: Path, left: int
) -> None:
    path = swapped(tmp_path, database, swap__keep_old="0d")
    name = parked(database)
    empty(database, name, left)
    with chroma(database) as client:
        docs(client, name).add(
            ids=["late"], documents=["late"], embeddings=[vector_of("old", "late")]
        )
    lost = 40 - left
    one = migration(path)
    seen: list[RunResult | SwapResult] = [
        one.status(), one.sweep(dry_run=True), one.rollback(dry_run=True), one.clean(dry_run=True)
    ]  # fmt: skip
    for result in seen:
        (found,) = result.to_dict()["losses"]
        counted = result is seen[0]  # it counts alone, and the late record makes up for one
        assert (found["had"], found["lost"]) == (40, lost - counted)
        assert name in found["collection"]
    refused(one.sweep, f"lost {lost} of its 40", "1 other late writes were copied")
    assert live(database) == {*ids(0, 40), "late"}
    refused(one.rollback, f"lost {lost} of its 4")
    refused(one.clean, f"lost {lost} of its 4", "sweep --accept-loss", "clean --accept-loss")
    assert live(database) == {*ids(0, 40), "late"}
    assert not journalled(path)
    cleaned = one.clean(accept_loss=True)
    assert cleaned.done and names_in(f"chroma:{database}").keys() == {"docs"}
    assert live(database) == {*ids(0, 40), "late"}
    assert journalled(path)[0].lost == lost


def test_a_mass_that_was_meant_is_carried_and_journalled(tmp_path: Path, database: Path) -> None:
    path = swapped(tmp_path, database)
    empty(database, parked(database), 5)
    assert migration(path).sweep(accept_loss=True).swept == 35
    assert live(database) == {*ids(0, 5)}
    (event,) = journalled(path)
    assert (event.had, event.lost, event.left) == (40, 35, 5)
    assert migration(path).sweep().swept == 0, "it is what the run knows by now"


@follows_hint("To have the old collection whole again, restore what is missing")
def test_rollback_to_an_emptied_collection_takes_a_word(tmp_path: Path, database: Path) -> None:
    path = swapped(tmp_path, database)
    empty(database, parked(database))
    error = refused(migration(path).rollback, "lost 40 of its 40", "Nothing is lost")
    assert "export shards" in error.hint
    assert len(live(database)) == 40
    assert migration(path).rollback(accept_loss=True).done
    assert live(database) == set()


@follows_hint("say so with --accept-loss, or give this run up with")
def test_a_source_that_goes_a_little_at_a_time_is_held_against_all_it_had(
    tmp_path: Path, database: Path
) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}")
    migration(path).run()
    with chroma(database) as client:
        docs(client).delete(ids=ids(0, 15))
    migration(path).run(until="load")  # 25 of 40 left
    with chroma(database) as client:
        docs(client).delete(ids=ids(15, 22))  # 7 of 25, and 18 of 40 left
    refused(lambda: migration(path).run(until="load"), "lost 22 of its 40")
    migration(path).run(until="load", accept_loss=True)
    with chroma(database) as client:
        docs(client).delete(ids=["r22"])
    assert migration(path).run().loaded == 17
    assert [event.left for event in journalled(path)] == [18]


def test_what_was_lost_while_the_shadow_waits_is_shown_and_accepted(
    tmp_path: Path, database: Path
) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}")
    one = migration(path)
    one.run()
    empty(database, "docs", 10)
    for document in (
        one.plan().to_dict(),
        one.status().to_dict(),
        one.swap(dry_run=True).to_dict(),
    ):
        (found,) = document["losses"]
        assert (found["had"], found["lost"]) == (40, 30)
        assert "'docs', live now" in found["collection"]
    refused(one.swap, "lost 30 of its 40", str(run_dir(path).path))
    assert one.swap(accept_loss=True).done
    assert live(database) == {*ids(0, 10)}


def test_a_killed_swap_or_rollback_carries_no_mass_of_deletions(
    tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}")
    migration(path).run()

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    for command, target in (
        ("swap", "reembed.cutover.swap.sweep"),
        ("rollback", "reembed.sync.carry_back.WayBack.carry_late"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(target, killed)
            with pytest.raises(KeyboardInterrupt):
                getattr(migration(path), command)()
        other = next(name for name in names_in(f"chroma:{database}") if name != "docs")
        with chroma(database) as client:
            whole = docs(client, other).get(include=["documents", "metadatas", "embeddings"])
        empty(database, other)
        result = getattr(migration(path), command)()
        assert result.done
        assert any("lost 40 of its 40" in message for message in result.messages)
        assert len(live(database)) == 40
        refused(migration(path).sweep, "lost 40 of its 40")
        with chroma(database) as client:
            docs(client, other).add(
                **{key: whole[key] for key in ("ids", "documents", "metadatas", "embeddings")}
            )
        assert migration(path).sweep().swept == 0
    assert len(live(database)) == 40


@follows_hint("if not, the same command with --accept-loss ignores them", where="run/loss.py")
@follows_hint(
    "if not, the same command with --accept-loss ignores them", where="cutover/rollback.py"
)
def test_a_shadow_emptied_after_a_rollback_is_made_again_on_a_word(
    tmp_path: Path, database: Path
) -> None:
    path = swapped(tmp_path, database)
    migration(path).rollback()
    empty(database, "docs__counting_model-new-64", 3)
    refused(migration(path).sweep, "lost 37 of its 40")
    refused(migration(path).swap, "lost 37 of its 40")
    refused(migration(path).clean, "lost 37 of its 40")
    assert migration(path).swap(accept_loss=True).done
    assert len(live(database)) == 40


@follows_hint("Restore the live collection first, from a backup")
@follows_hint("Restore it, or go back with `reembed rollback --accept-loss`.")
@follows_hint("With --accept-loss the live name goes back to the old collection as it is")
def test_a_live_collection_that_is_gone_comes_back_on_a_word(
    tmp_path: Path, database: Path
) -> None:
    path = swapped(tmp_path, database, swap__keep_old="0d")
    with chroma(database) as client:
        client.delete_collection("docs")
    one = migration(path)
    with pytest.raises(LossError, match="serves no collection") as caught:
        one.clean()
    assert "rollback --accept-loss" in caught.value.hint
    with pytest.raises(ReembedError) as gone:
        one.sweep()
    assert (gone.value.exit_code, bool(gone.value.hint)) == (5, True)
    refused(one.rollback, "which is gone", "with 40 records")
    assert one.rollback(accept_loss=True).done
    assert live(database) == {*ids(0, 40)}
    assert "nothing to copy" in one.sweep().messages[0]
    with pytest.raises(SourceChangedError, match="is gone") as caught_again:
        one.swap()
    assert "Move the run directory" in caught_again.value.hint
    assert one.clean().messages == ["there was no shadow to delete"]


# The last copy


def test_clean_keeps_the_shadow_of_a_source_that_is_gone(tmp_path: Path, database: Path) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}")
    migration(path).run()
    with chroma(database) as client:
        client.delete_collection("docs")
    before = names_in(f"chroma:{database}")
    one = migration(path)
    for accept in (False, True):
        with pytest.raises(LossError, match="serves no collection"):
            one.clean(accept_loss=accept)
    assert names_in(f"chroma:{database}") == before
    (found,) = one.status().losses
    assert "is gone" in found.collection
    with chroma(database) as client:
        plain_collection(client, "docs", 3)
    refused(one.clean, "last to hold 37 of its 40")
    with chroma(database) as client:
        client.delete_collection("docs")
        plain_collection(client, "docs")
    assert one.clean().done, "it holds all that the shadow holds"


def test_clean_keeps_the_old_collection_of_a_live_one_that_lacks_most(
    tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = swapped(tmp_path, database, swap__keep_old="0d")
    with chroma(database) as client:
        docs(client).delete(ids=ids(0, 4))
        docs(client).update(ids=["r9"], metadatas=[{"title": "new"}])
    _, gone, changed = migration(path).clean(dry_run=True).messages
    assert "deleted from the live collection since: 4" in gone
    assert "changed in the live collection since: 1" in changed

    def half(store: ChromaWriter, id: str) -> None:
        store.delete(id, ids(0, 20))
        raise UnreachableError("killed")

    with monkeypatch.context() as patch:  # over HTTP it goes record by record
        patch.setattr(ChromaWriter, "drop", half)
        with pytest.raises(UnreachableError):
            migration(path).clean()
    empty(database, "docs", 21)
    assert len(live(database)) == 17
    before = names_in(f"chroma:{database}")
    # 19 of the 20 that are left are here alone, of the 40 that there were
    assert migration(path).status().state == "cleaning"
    empty(database, "docs", 4)
    assert live(database) == set()
    with chroma(database) as client:
        client.get_collection("docs", embedding_function=None).modify(name="aside")
    with pytest.raises(SourceChangedError, match="serves no collection"):
        migration(path).clean()
    assert names_in(f"chroma:{database}").keys() != before.keys()
    with chroma(database) as client:
        client.get_collection("aside", embedding_function=None).modify(name="docs")
    assert names_in(f"chroma:{database}") == before
    result = migration(path).clean()
    assert "deleted from the live collection since: 20" in result.messages[1]


@follows_hint("With --accept-loss they are deleted for good.")
def test_clean_keeps_what_is_in_the_old_collection_alone(tmp_path: Path, database: Path) -> None:
    with chroma(database) as client:
        docs(client).add(ids=["mute"], embeddings=[vector_of("old", "mute")])
    path = write_manifest(
        tmp_path, f"chroma:{database}", verify__allow_quarantined=1, swap__keep_old="0d"
    )
    migration(path).run(swap=True)
    refused(migration(path).clean, "last to hold 1 of its 41", "mute")
    assert migration(path).clean(accept_loss=True).done
    (event,) = run_dir(path).history.all(events.CleanChecked)
    assert (event.records, event.only_here, event.gone) == (41, 1, 0)
    assert len(records_of_live(database)) == 40


def records_of_live(database: Path) -> Any:
    with chroma(database) as client:
        return records_of(docs(client))
