"""Values that must be unique move between rows, and the rows go there and back in groups."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import reembed.stages.export
import reembed.stages.load
import reembed.sync.carry_back
import reembed.sync.difference
import reembed.sync.follow
from reembed.errors import PreflightError, TakenError
from reembed.records import export_batch
from reembed.run import events
from reembed.run.journal import Journal
from reembed.stores.collection import Collection
from reembed.stores.postgres.records import Records
from reembed.stores.registry import open_store
from reembed.stores.store import Store
from tests.support.crossing import crossed
from tests.support.manifests import migration, run_dir
from tests.support.pg_docs import App, app, make_docs, pg_manifest, traces

ROWS = 40


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few rows in a group that is written to a collection that was live, or is."""
    for module in (reembed.sync.follow, reembed.sync.carry_back):
        monkeypatch.setattr(module, "LIVE_ROWS", 10)


@pytest.fixture
def small(small_groups: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few rows in a shard, too."""
    for module in (
        reembed.sync.difference,
        reembed.stages.export,
        reembed.stages.load,
        reembed.sync.carry_back,
    ):
        monkeypatch.setattr(module, "SHARD_ROWS", 15)


def rotate(docs: App, count: int = ROWS) -> None:
    """Each record takes over the slug of the next one, the last one that of the first."""
    docs.run("UPDATE {t} SET slug = 'x' || slug")
    docs.run("UPDATE {t} SET slug = 's' || (id %% %s + 1)", count)


def exchange(docs: App, one: int, other: int) -> None:
    """Two records exchange their slugs."""
    slugs = dict(docs.run("SELECT id, slug FROM {t} WHERE id IN (%s, %s)", one, other))
    docs.run("UPDATE {t} SET slug = 'between' WHERE id = %s", one)
    docs.run("UPDATE {t} SET slug = %s WHERE id = %s", slugs[one], other)
    docs.run("UPDATE {t} SET slug = %s WHERE id = %s", slugs[other], one)


def give(docs: App, id: int, slug: str) -> None:
    docs.run("UPDATE {t} SET slug = %s WHERE id = %s", slug, id)


def slug_of(docs: App, id: int) -> str:
    return str(docs.run("SELECT slug FROM {t} WHERE id = %s", id)[0][0])


def vectors(docs: App) -> dict[int, str]:
    return dict(docs.run("SELECT id, embedding::text FROM {t}"))


def swapped(path: Path) -> str:
    """Migrate and swap; the name of the parked table."""
    result = migration(path).run(swap=True).swap
    assert result is not None
    return result.parked


@contextmanager
def killed(
    monkeypatch: pytest.MonkeyPatch, step: str, at: int = 1, after: bool = True
) -> Iterator[None]:
    """In the block the process ends before or after the `at`-th time that records are noted to make
    room ("note"), deleted ("delete") or written ("replace")."""
    with monkeypatch.context() as patch:
        times = 0

        def dying(original: Callable[..., Any], counts: Callable[..., bool]) -> Callable[..., Any]:
            def called(*arguments: Any, **fields: Any) -> None:
                nonlocal times
                times += counts(*arguments)
                if times == at and not after:
                    raise KeyboardInterrupt
                original(*arguments, **fields)
                if times >= at:
                    raise KeyboardInterrupt

            return called

        if step == "note":
            noting = dying(Journal.append, lambda _, event: event.startswith("displaced"))
            patch.setattr(Journal, "append", noting)
        else:

            def counts(_: Any, id: str, ids: Any, *rest: Any) -> bool:
                return len(ids) > 0 and rest[1:] in ((), ("replace",))

            name = "write" if step == "replace" else step
            patch.setattr(Records, name, dying(getattr(Records, name), counts))
        with pytest.raises(KeyboardInterrupt):
            yield


KILLS = [("note", False), ("note", True), ("delete", True)]


# Back


@pytest.mark.parametrize("hanging", ["", "CREATE VIEW titles AS SELECT id, slug FROM docs"])
def test_a_rotation_goes_back(tmp_path: Path, postgres_url: str, hanging: str) -> None:
    make_docs(postgres_url, 120, *filter(None, [hanging]))
    path = pg_manifest(tmp_path, postgres_url, source__model=None)
    with app(postgres_url) as docs:
        old = vectors(docs)
        migration(path).run(swap=True)
        rotate(docs, 120)
        docs.annotate(7, "more than a slug")
        expected = docs.rows()
        result = migration(path).rollback()
        assert (result.caught_up, result.lost, result.conflicts) == (120, [], [])
        assert docs.rows() == expected
        assert vectors(docs) == old, "there is no old model, so each is the one it was"


@pytest.mark.usefixtures("small")
def test_a_rotation_goes_back_with_new_texts(tmp_path: Path, docs_url: str) -> None:
    path = pg_manifest(tmp_path, docs_url)
    with app(docs_url) as docs:
        migration(path).run(swap=True)
        rotate(docs)
        for id in range(1, ROWS + 1, 3):
            docs.rewrite(id, f"new words {id}")
        docs.delete(5)
        expected = docs.rows()
        assert migration(path).rollback().done
        assert (docs.rows(), docs.wrong_vectors("old")) == (expected, [])
        rotate(docs)
        expected = docs.rows()
        assert migration(path).swap().done, "the shadow is made what the shards say, and caught up"
        assert (docs.rows(), docs.wrong_vectors("new")) == (expected, [])
        assert migration(path).clean().done
    assert traces(docs_url) == []


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("step", "after"), KILLS)
def test_a_rollback_killed_where_rows_make_room_goes_on(
    tmp_path: Path, docs_url: str, monkeypatch: pytest.MonkeyPatch, step: str, after: bool
) -> None:
    path = pg_manifest(tmp_path, docs_url, source__model=None)
    with app(docs_url) as docs:
        old = vectors(docs)
        parked = swapped(path)
        rotate(docs)
        live = docs.rows()
        with killed(monkeypatch, step, 1, after):
            migration(path).rollback()
        # What made room is nobody's deletion, those rows neither that are by now what they were.
        with app(docs_url, parked) as old_docs:
            missing = docs.rows().keys() - old_docs.rows().keys()
        assert missing or step == "note"
        for id in missing:
            give(docs, (id - 2) % ROWS + 1, f"z{id}")
            give(docs, id, f"s{id}")
        expected = docs.rows()
        assert migration(path).sweep().swept == 0
        assert docs.rows() == expected
        docs.run("UPDATE {t} SET slug = 'x' || slug")
        docs.run("UPDATE {t} SET slug = 's' || (id %% %s + 1)", ROWS)
        assert docs.rows() == live
        assert migration(path).rollback().done
        assert (docs.rows(), vectors(docs)) == (live, old)


@pytest.mark.usefixtures("small")
def test_a_row_deleted_while_another_waits_for_its_turn_stays_deleted(
    tmp_path: Path, docs_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pg_manifest(tmp_path, docs_url)
    with app(docs_url) as docs:
        migration(path).run(swap=True)
        rotate(docs)
        with killed(monkeypatch, "note"):  # it is noted, and still there
            migration(path).rollback()
        (event,) = run_dir(path).history.all(events.DisplacedBack)
        docs.delete(*map(int, event.ids))
        expected = docs.rows()
        assert migration(path).rollback().done
        assert (docs.rows(), docs.wrong_vectors("old")) == (expected, [])


@pytest.mark.usefixtures("small")
def test_a_value_that_moves_while_rows_go_back(
    tmp_path: Path, docs_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row that gave it up is on no list yet, and has even got it back in the end."""
    path = pg_manifest(tmp_path, docs_url)
    with app(docs_url) as docs:
        migration(path).run(swap=True)
        docs.annotate(1, "so that it goes back")
        fetch, told = Records.fetch, list[int]()
        unlike = reembed.sync.carry_back.WayBack._unlike

        def listed(way_back: reembed.sync.carry_back.WayBack, ids: list[str]) -> list[str]:
            found = unlike(way_back, ids)
            told.append(len(found))
            if len(told) == 1:
                exchange(docs, 1, 30)
            return found

        def read(store: Records, id: str, ids: Any, **options: Any) -> pa.RecordBatch:
            rows = fetch(store, id, ids, **options)
            if told == [1] and "1" in ids:
                documents = rows.column("metadata").to_pylist()
                if any('"s30"' in one for one in documents):
                    told.append(0)
                    exchange(docs, 1, 30)
            return rows

        monkeypatch.setattr(reembed.sync.carry_back.WayBack, "_unlike", listed)
        monkeypatch.setattr(Records, "fetch", read)
        assert migration(path).rollback().done
        assert told[:2] == [1, 0]
        assert slug_of(docs, 30) == "s30"
        assert (len(docs.rows()), docs.wrong_vectors("old")) == (ROWS, [])


def test_a_value_that_only_the_old_collection_holds_is_not_taken_away(
    tmp_path: Path, docs_url: str
) -> None:
    path = pg_manifest(tmp_path, docs_url, verify__allow_quarantined=1)
    with app(docs_url) as docs:
        docs.run("INSERT INTO {t} (id, content, slug) VALUES (99, NULL, 'mute')")
        mute = docs.rows()[99]
        migration(path).run(swap=True)
        before = docs.rows()
        give(docs, 3, "mute")
        give(docs, 4, "s3")
        give(docs, 5, "five")
        with pytest.raises(PreflightError, match=r"cannot go back, e.g. '3'") as caught:
            migration(path).rollback()
        assert "held by '99' (docs__counting_model-new-64_slug_key)" in caught.value.message
        assert "--accept-loss" in caught.value.hint
        assert slug_of(docs, 3) == "mute", "nothing has moved"
        result = migration(path).rollback(accept_loss=True)
        assert result.lost == ["3", "4"]
        rows = docs.rows()
        assert rows[99] == mute
        assert (rows[3], rows[4]) == (before[3], before[4]), "the old rows stay"
        assert slug_of(docs, 5) == "five"


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("changed", ["id IN (1, 39)", "true"])
def test_what_is_unique_in_the_old_collection_alone_ends(
    tmp_path: Path, docs_url: str, changed: str
) -> None:
    """The application has given up its constraint, and two rows of a write, or of two, hold one
    value by now."""
    path = pg_manifest(tmp_path, docs_url)
    with app(docs_url) as docs:
        migration(path).run(swap=True)
        docs.run("ALTER TABLE {t} DROP CONSTRAINT docs_slug_key")
        docs.run("UPDATE {t} SET slug = 'twice' WHERE id IN (1, 39)")
        docs.run("UPDATE {t} SET price = 1 WHERE " + changed)
        with pytest.raises(PreflightError, match="cannot go back"):
            migration(path).rollback()
        result = migration(path).rollback(accept_loss=True)
        assert result.lost in (["1"], ["39"])
        (lost,) = map(int, result.lost)
        assert (slug_of(docs, lost), slug_of(docs, 40 - lost)) == (f"s{lost}", "twice")
        assert docs.wrong_vectors("old") == []


@pytest.mark.usefixtures("small_groups")
def test_late_rows_go_back_unless_the_application_uses_their_value(
    tmp_path: Path, docs_url: str
) -> None:
    path = pg_manifest(tmp_path, docs_url)
    with app(docs_url) as docs:
        migration(path).run(swap=True)
        shadow = migration(path).rollback().parked
        with app(docs_url, shadow) as late:
            rotate(late)
            expected = late.rows()
            result = migration(path).sweep()
            assert (result.swept, result.conflicts) == (ROWS, [])
            assert (docs.rows(), docs.wrong_vectors("old")) == (expected, [])
            give(docs, 7, "mine")
            give(late, 8, "mine")
            give(late, 9, "fine")
            result = migration(path).sweep()
            assert (result.swept, result.conflicts) == (1, ["8"])
            assert [slug_of(docs, id) for id in (7, 8, 9)] == ["mine", "s9", "fine"]
            with pytest.raises(PreflightError, match="1 writes that came after the rollback"):
                migration(path).clean()
            give(docs, 7, "free")
            assert migration(path).sweep().swept == 1
            assert slug_of(docs, 8) == "mine"


# Forward


@pytest.mark.usefixtures("small")
def test_a_rotation_is_caught_up_with(tmp_path: Path, docs_url: str) -> None:
    path = pg_manifest(tmp_path, docs_url)
    with app(docs_url) as docs:
        migration(path).run()
        rotate(docs)
        expected = docs.rows()
        result = migration(path).run(swap=True)
        assert result.verdict is not None and result.verdict.passed
        assert (docs.rows(), docs.wrong_vectors("new")) == (expected, [])
    assert sum(shard.rows for stem, shard in run_dir(path).shards("embed").items()
               if stem.startswith("delta-")) == ROWS, "each record was carried once"  # fmt: skip


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("step", "after"), KILLS)
def test_a_catch_up_killed_where_rows_make_room_goes_on(
    tmp_path: Path, docs_url: str, monkeypatch: pytest.MonkeyPatch, step: str, after: bool
) -> None:
    path = pg_manifest(tmp_path, docs_url)
    with app(docs_url) as docs:
        migration(path).run()
        rotate(docs)
        with killed(monkeypatch, step, 1, after):
            migration(path).run(swap=True)
        exchange(docs, 1, 40)
        expected = docs.rows()
        assert migration(path).run(swap=True).swap is not None
        assert (docs.rows(), docs.wrong_vectors("new")) == (expected, [])


@pytest.mark.parametrize(("back", "stop"), crossed([False, True], [False, True]))
def test_a_row_read_after_another_gave_its_value_up(
    tmp_path: Path, docs_url: str, monkeypatch: pytest.MonkeyPatch, back: bool, stop: bool
) -> None:
    """Row 1 is on the list and read late; row 30 gives its slug up after the listing, and takes it
    back after that or not."""
    path = pg_manifest(tmp_path, docs_url)
    carry, build_index, times = (
        reembed.stages.export.export_delta,
        reembed.stages.load.build_index,
        0,
    )
    with app(docs_url) as docs:

        def meanwhile(*arguments: Any) -> None:
            nonlocal times
            times += 1
            if times == 1:
                exchange(docs, 1, 30)
            carry(*arguments)
            if times == 1 and back:
                exchange(docs, 1, 30)

        def stopped(*arguments: Any) -> None:
            if times:
                raise KeyboardInterrupt
            build_index(*arguments)

        monkeypatch.setattr("reembed.sync.follow.export_delta", meanwhile)
        migration(path).run()
        docs.annotate(1, "changed")
        if stop:  # between the delta's load and the next round
            with monkeypatch.context() as patch:
                patch.setattr("reembed.stages.load.build_index", stopped)
                with pytest.raises(KeyboardInterrupt):
                    migration(path).run(swap=True)
            verdict = migration(path).verify().verdict
            assert verdict is not None and not verdict.passed, "a row is missing"
            assert verdict.gates[0].samples["missing"] == ["30"]
        expected = docs.rows()
        migration(path).run(swap=True)
        expected = docs.rows() if not stop else expected
        assert (len(docs.rows()), docs.rows(), docs.wrong_vectors("new")) == (ROWS, expected, [])
        assert slug_of(docs, 30) == ("s30" if back else "s1")
    assert [event.ids for event in run_dir(path).history.all(events.Displaced)] == [("30",)]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("constraint", [True, False])
def test_an_export_of_several_moments(
    tmp_path: Path, docs_url: str, monkeypatch: pytest.MonkeyPatch, constraint: bool
) -> None:
    """A killed export goes on in another snapshot, so two shards may hold one value."""
    path = pg_manifest(tmp_path, docs_url)
    with app(docs_url) as docs:
        if not constraint:  # it is made when the shadow is full
            docs.run("ALTER TABLE {t} DROP CONSTRAINT docs_slug_key")
            docs.run("CREATE UNIQUE INDEX slugs ON {t} (slug) WHERE price > 0")
        fetch, times = reembed.stages.export._fetch, 0

        def dying(*arguments: Any) -> pa.Table:
            nonlocal times
            times += 1
            if times == 3:
                raise KeyboardInterrupt
            return fetch(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(reembed.stages.export, "_fetch", dying)
            with pytest.raises(KeyboardInterrupt):
                migration(path).run()
        assert run_dir(path).shards("export")
        rotate(docs)
        expected = docs.rows()
        migration(path).run(swap=True)
        assert (docs.rows(), docs.wrong_vectors("new")) == (expected, [])
    assert run_dir(path).history.all(events.Displaced)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("kill", [False, True])
def test_the_shadow_is_made_again_what_the_shards_say(
    tmp_path: Path, docs_url: str, monkeypatch: pytest.MonkeyPatch, kill: bool
) -> None:
    path = pg_manifest(tmp_path, docs_url)
    with app(docs_url) as docs:
        migration(path).run(swap=True)
        rotate(docs)
        docs.delete(20)
        docs.insert("another", 100)
        give(docs, 100, "s21")
        expected = docs.rows()
        migration(path).rollback()
        assert docs.rows() == expected
        if kill:
            with killed(monkeypatch, "delete", 2):  # the first deletes strays
                migration(path).swap()
        migration(path).swap()
        assert (docs.rows(), docs.wrong_vectors("new")) == (expected, [])


# The sweep


@pytest.mark.usefixtures("small_groups")
def test_a_rotation_is_swept(tmp_path: Path, docs_url: str) -> None:
    path = pg_manifest(tmp_path, docs_url)
    with app(docs_url) as docs:
        parked = swapped(path)
        with app(docs_url, parked) as late:
            rotate(late)
            late.delete(11)
            give(late, 3, "s12")
            expected = late.rows()
        result = migration(path).sweep()
        assert (result.swept, result.conflicts) == (ROWS, [])
        assert (docs.rows(), docs.wrong_vectors("new")) == (expected, [])


@pytest.mark.usefixtures("small_groups")
def test_two_rows_that_exchange_values_are_swept_in_one_write(
    tmp_path: Path, docs_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pg_manifest(tmp_path, docs_url)
    with app(docs_url) as docs:
        parked = swapped(path)
        with app(docs_url, parked) as late:
            for id in range(2, 14):
                late.annotate(id, "so that they are in two groups")
            exchange(late, 1, 14)
            expected = late.rows()
        deleted: list[str] = []
        delete = Records.delete

        def noted(store: Records, id: str, ids: list[str]) -> None:
            deleted.extend(ids)
            delete(store, id, ids)

        monkeypatch.setattr(Records, "delete", noted)
        assert migration(path).sweep().swept == 14
        assert docs.rows() == expected
        assert deleted == [], "the application never misses a row"


@pytest.mark.usefixtures("small_groups")
@pytest.mark.parametrize("after", [False, True])
def test_a_sweep_killed_where_rows_are_joined_goes_on(
    tmp_path: Path, docs_url: str, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    path = pg_manifest(tmp_path, docs_url)
    with app(docs_url) as docs:
        parked = swapped(path)
        with app(docs_url, parked) as late:
            for id in range(1, ROWS + 1):
                late.annotate(id, "late")
            exchange(late, 1, 12)
            exchange(late, 21, 40)
            expected = late.rows()
        with killed(monkeypatch, "replace", 2, after):
            migration(path).sweep()
        assert docs.rows().keys() == expected.keys(), "no row is missing"
        assert migration(path).sweep().conflicts == []
        assert (docs.rows(), docs.wrong_vectors("new")) == (expected, [])


@pytest.mark.usefixtures("small_groups")
def test_a_value_that_the_application_uses_is_left_to_it(tmp_path: Path, docs_url: str) -> None:
    path = pg_manifest(tmp_path, docs_url)
    with app(docs_url) as docs:
        parked = swapped(path)
        give(docs, 30, "mine")
        with app(docs_url, parked) as late:
            give(late, 7, "mine")
            give(late, 25, "s7")
            give(late, 9, "fine")
            give(late, 31, "s9")
        result = migration(path).sweep()
        assert (result.swept, result.conflicts) == (4, ["25", "7"])
        slugs = [slug_of(docs, id) for id in (7, 9, 25, 30, 31)]
        assert slugs == ["s7", "fine", "s25", "mine", "s9"]
        assert (len(docs.rows()), docs.wrong_vectors("new")) == (ROWS, [])


# Kinds of uniqueness

ODD = 'Odd "%s" {name}'
KINDS: dict[str, tuple[str, list[tuple[Any, Any, Any]], Any, list[str]]] = {
    "constraint": ("UNIQUE (a)", [("x", 1, None), ("y", 1, None)], ("y", 2, 5), ["2"]),
    "two columns": ("UNIQUE (a, b)", [("x", 1, None), ("y", 1, None)], ("x", 1, 5), ["1"]),
    "two columns, one of them other": ("UNIQUE (a, b)", [("x", 1, None)], ("x", 2, None), []),
    "nulls": ("UNIQUE (a)", [(None, 1, None)], (None, 2, None), []),
    "nulls alike": (
        "UNIQUE NULLS NOT DISTINCT (a, b)",
        [("x", 1, None), (None, 1, None), (None, None, None), ("x", None, None)],
        (None, 1, None), ["2"],
    ),
    "nulls alike, without any": (
        "UNIQUE NULLS NOT DISTINCT (a, b)", [("x", 1, None), (None, 1, None)], ("x", 1, None),
        ["1"],
    ),
    "deferred": (
        "UNIQUE (a) DEFERRABLE INITIALLY DEFERRED", [("x", 1, None)], ("x", 2, None), ["1"],
    ),
    "expression": ("INDEX (lower(a))", [("X", 1, None), ("y", 1, None)], ("x", 2, None), ["1"]),
    "partial": (
        "INDEX (b) WHERE a <> 'off'", [("off", 1, None), ("on", 1, None)], ("x", 1, None), ["2"],
    ),
    "partial, not covered": (
        "INDEX (b) WHERE a <> 'off'", [("on", 1, None)], ("off", 1, None), [],
    ),
    "included column": ("INDEX (b) INCLUDE (a)", [("x", 1, None)], ("y", 1, None), ["1"]),
    "collation": ('INDEX (a COLLATE "C", b)', [("x", 1, None)], ("x", 1, None), ["1"]),
    "generated column": ("UNIQUE (twice)", [("x", 1, None)], ("y", 1, None), ["1"]),
    "odd name": (f"""UNIQUE ("{ODD.replace('"', '""')}")""", [("x", 1, 5)], ("y", 2, 5), ["1"]),
    "exclusion": (
        "EXCLUDE USING gist (int4range(b, b + 10) WITH &&)", [("x", 1, None), ("y", 20, None)],
        ("z", 8, None), ["1"],
    ),
}  # fmt: skip
"""What must be unique, the columns a, b and ODD of the rows 1, 2, ..., those of row 9, and the ids
of the rows that are in its way."""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("replacing", [True, False])
def test_who_holds_a_value_is_told(postgres_url: str, kind: str, replacing: bool) -> None:
    wanted, rows, needy, holders = KINDS[kind]
    odd = f'''"{ODD.replace('"', '""')}"'''
    with app(postgres_url, ODD) as docs:
        table = odd.replace("{", "{{").replace("}", "}}")
        inside = wanted.replace("{", "{{").replace("}", "}}")
        docs.run(
            f"CREATE TABLE {table} (id int PRIMARY KEY, body text, a text, b int, {table} int, "
            "twice int GENERATED ALWAYS AS (b * 2) STORED, embedding vector(2)"
            + ("" if wanted.startswith("INDEX") else f", {inside}") + ")"
        )  # fmt: skip
        if wanted.startswith("INDEX"):
            docs.run(f"CREATE UNIQUE INDEX ON {table}{inside.removeprefix('INDEX')}")
        for number, row in enumerate(rows, 1):
            values = "VALUES (%s, 'text', %s, %s, %s)"
            docs.run(f"INSERT INTO {table.replace('%', '%%')} {values}", number, *row)
        store = open_store(postgres_url)
        id = store.catalog.describe(f"public.{ODD}").id
        batch = _row(store, id, needy)
        collection = Collection(store, id)
        write = collection.overwrite if replacing else collection.add
        one = np.ones((1, 2), np.float32)
        if not holders:
            write(batch, one)
        else:
            with pytest.raises(TakenError) as caught:
                write(batch, one)
            assert caught.value.taken == {"9": holders}
            assert store.reader.fetch(id, ["9"], vectors=False).num_rows == 0, "nothing was written"
            store.to_write().delete(id, holders)
            write(batch, one)
        assert store.reader.fetch(id, ["9"], vectors=False).num_rows == 1
        store.close()


def _row(store: Store, id: str, columns: tuple[Any, Any, Any]) -> pa.RecordBatch:
    object = dict(zip(("a", "b", ODD), columns, strict=True))
    return export_batch(["9"], ["body"], [json.dumps(object)], [None])


def test_rows_of_one_write_that_need_one_value_are_told(postgres_url: str) -> None:
    with app(postgres_url) as docs:
        docs.run("CREATE TABLE docs (id int PRIMARY KEY, body text UNIQUE, embedding vector(2))")
    store = open_store(postgres_url)
    id = store.catalog.describe("docs").id
    batch = export_batch(["1", "2"], ["same", "same"], ["null"] * 2, [None] * 2)
    with pytest.raises(TakenError) as caught:
        store.to_write().write(id, batch, np.ones((2, 2), np.float32), "replace")
    assert caught.value.taken == {"2": ["1"]}
    store.close()


def test_the_second_table_of_a_unit_tells_its_own_ids(postgres_url: str) -> None:
    with app(postgres_url) as docs:
        for name in ("memories", "memories_entities"):
            docs.run(f"CREATE TABLE {name} (id uuid PRIMARY KEY, vector vector(2), payload jsonb)")
            docs.run(f"CREATE UNIQUE INDEX ON {name} ((payload ->> 'name'))")
    store = open_store(postgres_url)
    id = store.catalog.describe("memories").id
    uuids = [f"00000000-0000-0000-0000-00000000000{n}" for n in range(4)]
    names = [uuids[0], uuids[1], f"entities/{uuids[2]}", f"entities/{uuids[3]}"]
    payloads = ['{"name": "a"}', '{"name": "b"}'] * 2
    ones = np.ones((2, 2), np.float32)

    def batch(rows: list[int], payloads: list[str]) -> pa.RecordBatch:
        return export_batch([names[row] for row in rows], [None] * 2, payloads, [None] * 2)

    store.to_write().write(id, batch([0, 2], [payloads[0], payloads[0]]), ones, "add")
    with pytest.raises(TakenError) as caught:
        store.to_write().write(id, batch([1, 3], ['{"name": "c"}', payloads[0]]), ones, "replace")
    assert caught.value.taken == {names[3]: [names[2]]}
    assert store.reader.count(id) == 2, "neither table was written to"
    store.close()
