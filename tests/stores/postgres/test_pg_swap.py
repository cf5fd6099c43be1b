"""The swap in Postgres: both ways there and back under live writes, with all that hangs on a table.

`test_pg_locks.py` has what gets in its way.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from reembed.errors import LossError, PreflightError
from reembed.run import events
from reembed.stores.registry import open_store
from tests.support.commands import Command
from tests.support.crash import outcome, work
from tests.support.crossing import crossed
from tests.support.manifests import migration, run_dir
from tests.support.pg_docs import App, app, catalog, pg_manifest, traces
from tests.support.servers.postgres_server import PostgresServer
from tests.support.texts import sentence

# Live writes


@dataclass
class Writing:
    """What a writer at work has been told was written: the text by id, None where it deleted."""

    texts: dict[int, str | None] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)


@contextlib.contextmanager
def writing(url: str, base: int) -> Iterator[Writing]:
    """An application writes all through the block; ids from `base` on are its own."""
    told, stop = Writing(), threading.Event()

    def work() -> None:
        with app(url) as docs:
            number = 0
            while not stop.is_set():
                number += 1
                try:
                    _write(docs, told, base, number)
                except psycopg.errors.DataException:  # of the other model by now: it looks again
                    continue
                except psycopg.Error as error:
                    told.errors.append(str(error))
                stop.wait(0.01)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        yield told
    finally:
        stop.set()
        worker.join()


def _write(docs: App, told: Writing, base: int, number: int) -> None:
    id = base + number % 25
    text = f"live {base} {number}"
    if told.texts.get(id) is None:
        docs.insert(text, id)
        told.texts[id] = text
    elif number % 3:
        docs.rewrite(id, text)
        told.texts[id] = text
    else:
        docs.delete(id)
        told.texts[id] = None


def check(docs: App, model: str, before: dict[int, tuple[str | None, ...]], told: Writing) -> None:
    """The table is what it was before the block and what was written in it, with right vectors."""
    now = docs.rows()
    column = _column(docs, "content")
    assert told.errors == [] and len(told.texts) > 1
    assert {id: now[id][column] if id in now else None for id in told.texts} == told.texts
    untouched = {id: row for id, row in before.items() if id not in told.texts}
    assert {id: row for id, row in now.items() if id not in told.texts} == untouched
    assert (docs.model, docs.wrong_vectors(model)) == (model, [])


def _column(docs: App, name: str) -> int:
    names = docs.run(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'docs'::regclass AND attnum > 0 AND NOT "
        "attisdropped AND attname NOT IN ('id', 'embedding') ORDER BY attname"
    )
    return [row[0] for row in names].index(name)


def there_and_back(path: Path, url: str, works: Callable[[App], None] = lambda docs: None) -> None:
    """Run, swap, rollback, swap again and clean, with writes before, during and after each move."""
    with app(url) as docs:
        shape = catalog(url)
        migration(path).run()
        docs.rewrite(1, "between run and swap")
        docs.rekey(2, 502)
        for base, model, move in (
            (1000, "new", "swap"), (2000, "old", "rollback"), (3000, "new", "swap"),
        ):  # fmt: skip
            before = docs.rows()
            with writing(url, base) as told:
                if move == "swap":
                    assert migration(path).run(swap=True).swap is not None
                else:
                    assert migration(path).rollback().done
            check(docs, model, before, told)
            assert docs.nearest(sentence(7)) == 7
            works(docs)
            docs.rewrite(3, f"after {move} {base}")
            docs.delete(base + 1)
            docs.annotate(4, f"after {move} {base}")
        expected = docs.rows()
        assert migration(path).clean().done
        assert docs.rows() == expected and docs.wrong_vectors("new") == []
        works(docs)
    assert traces(url) == []
    now = catalog(url)
    now["types"] = [line.replace("vector(64)", "vector(48)") for line in now["types"]]
    assert now == shape, "every name is what it was"


def test_a_leaf_table_is_renamed_there_and_back(tmp_path: Path, docs_url: str) -> None:
    path = pg_manifest(tmp_path, docs_url)
    notes = " ".join(problem.message for problem in migration(path).plan().warnings)
    assert "public.docs is exchanged by renaming: nothing else depends on it" in notes
    there_and_back(path, docs_url)


# What hangs on a table


def refuses(docs: App, statement: str, error: type[psycopg.Error]) -> None:
    with pytest.raises(error), docs.connection.transaction():
        docs.run(statement)


def incoming_key(docs: App) -> None:
    docs.run("INSERT INTO notes (doc) VALUES (5)")
    refuses(docs, "INSERT INTO notes (doc) VALUES (-1)", psycopg.errors.ForeignKeyViolation)
    refuses(docs, "DELETE FROM docs WHERE id = 5", psycopg.errors.ForeignKeyViolation)


def outgoing_key(docs: App) -> None:
    docs.run("UPDATE docs SET owner = 1 WHERE id = 5")
    refuses(docs, "UPDATE docs SET owner = 9 WHERE id = 5", psycopg.errors.ForeignKeyViolation)
    refuses(docs, "DELETE FROM people WHERE id = 1", psycopg.errors.ForeignKeyViolation)


def own_key(docs: App) -> None:
    docs.run("UPDATE docs SET parent = 6 WHERE id = 5")
    refuses(docs, "UPDATE docs SET parent = -6 WHERE id = 5", psycopg.errors.ForeignKeyViolation)


def view(docs: App) -> None:
    assert docs.run("SELECT count(*) FROM titles") == docs.run("SELECT count(*) FROM docs")
    docs.run("UPDATE titles SET content = 'through the view' WHERE id = 6")
    docs.rewrite(6, "and back")


def materialized_view(docs: App) -> None:
    docs.run("REFRESH MATERIALIZED VIEW summary")
    assert docs.run("SELECT * FROM summary") == docs.run("SELECT count(*), sum(price) FROM docs")


def policies(docs: App) -> None:
    with docs.connection.transaction():
        docs.run("SET LOCAL ROLE reading")
        assert docs.run("SELECT id FROM docs WHERE id BETWEEN 5 AND 20 ORDER BY id") == [
            (id,) for id in range(5, 11)
        ]
    with pytest.raises(psycopg.errors.InsufficientPrivilege), docs.connection.transaction():
        docs.run("SET LOCAL ROLE reading")
        docs.run("UPDATE docs SET content = 'x' WHERE id = 5")


def grants(docs: App) -> None:
    with docs.connection.transaction():
        docs.run("SET LOCAL ROLE reading")
        assert docs.run("SELECT count(*) FROM docs WHERE embedding IS NOT NULL")
        docs.run("UPDATE docs SET price = 1 WHERE id = 5")
    with pytest.raises(psycopg.errors.InsufficientPrivilege), docs.connection.transaction():
        docs.run("SET LOCAL ROLE reading")
        docs.run("DELETE FROM docs")


def touched_at(docs: App) -> None:
    before = docs.run("SELECT updated_at FROM docs WHERE id = 12")
    assert before[0][0].year == 2024, "copying vectors is no write of the application's"
    docs.run("UPDATE docs SET price = 3 WHERE id = 13")
    assert docs.run("SELECT updated_at > now() - interval '1 minute' FROM docs WHERE id = 13") == [
        (True,)
    ]


def audited(docs: App) -> None:
    assert docs.run("SELECT count(*) FROM audit WHERE id = 12") == [(0,)]
    (before,) = docs.run("SELECT count(*) FROM audit WHERE id = 13")[0]
    docs.run("UPDATE docs SET price = price + 1 WHERE id = 13")
    assert docs.run("SELECT count(*) FROM audit WHERE id = 13") == [(before + 1,)]
    assert docs.run("SELECT tgenabled::text FROM pg_trigger WHERE tgname = 'asleep'") == [("D",)]


def publication(docs: App) -> None:
    assert docs.run("SELECT tablename::text FROM pg_publication_tables") == [("docs",)]


def rule(docs: App) -> None:
    docs.run("DELETE FROM logged")
    docs.insert("told by the rule", 77_001)
    docs.delete(77_001)
    assert docs.run("SELECT id FROM logged") == [(77_001,)]


HANGING: dict[str, tuple[str, str, Callable[[App], None]]] = {
    "incoming foreign key": (
        "CREATE TABLE notes (doc bigint CONSTRAINT note_of REFERENCES docs ON UPDATE CASCADE)",
        "foreign key note_of of notes", incoming_key,
    ),
    "outgoing foreign key": (
        "CREATE TABLE people (id int PRIMARY KEY); INSERT INTO people VALUES (1); ALTER TABLE docs "
        "ADD owner int CONSTRAINT owned_by REFERENCES people; UPDATE docs SET owner = 1 WHERE id = "
        "8",
        "foreign key owned_by to people", outgoing_key,
    ),
    "deferred foreign key": (
        "CREATE TABLE people (id int PRIMARY KEY); INSERT INTO people VALUES (1); ALTER TABLE docs "
        "ADD owner int DEFAULT 1 CONSTRAINT owned_by REFERENCES people DEFERRABLE INITIALLY "
        "DEFERRED",
        "foreign key owned_by to people",
        lambda docs: refuses(docs, "UPDATE docs SET owner = 9", psycopg.errors.ForeignKeyViolation),
    ),
    "own foreign key": (
        "ALTER TABLE docs ADD parent bigint CONSTRAINT child_of REFERENCES docs; "
        "UPDATE docs SET parent = 6 WHERE id = 8",
        "foreign key child_of of docs", own_key,
    ),
    "view": ("CREATE VIEW titles AS SELECT id, content FROM docs", "view titles", view),
    "materialized view": (
        "CREATE MATERIALIZED VIEW summary AS SELECT count(*), sum(price) FROM docs",
        "view summary", materialized_view,
    ),
    "policies": (
        "ALTER TABLE docs ENABLE ROW LEVEL SECURITY; CREATE POLICY few ON docs FOR SELECT TO "
        "reading USING (id <= 10); GRANT SELECT ON docs TO reading",
        "grant to reading, policy few", policies,
    ),
    "row-level security": (
        "ALTER TABLE docs ENABLE ROW LEVEL SECURITY", "row-level security", lambda docs: None,
    ),
    "grants": (
        "GRANT SELECT, UPDATE (price) ON docs TO reading",
        "grant on column price, grant to reading", grants,
    ),
    "trigger before updates": (
        "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.updated_at := "
        "now(); RETURN NEW; END $$; CREATE TRIGGER touch BEFORE UPDATE ON docs FOR EACH ROW "
        "EXECUTE FUNCTION touch()",
        "trigger touch", touched_at,
    ),
    "triggers of every state": (
        "CREATE TABLE audit (id bigint); CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql "
        "AS $$ BEGIN INSERT INTO audit VALUES (coalesce(NEW.id, OLD.id)); RETURN NULL; END $$; "
        "CREATE TRIGGER always AFTER UPDATE ON docs FOR EACH ROW EXECUTE FUNCTION note(); "
        "CREATE TRIGGER asleep AFTER UPDATE ON docs FOR EACH ROW EXECUTE FUNCTION note(); "
        "CREATE TRIGGER replica AFTER UPDATE ON docs FOR EACH ROW EXECUTE FUNCTION note(); "
        "ALTER TABLE docs ENABLE ALWAYS TRIGGER always, DISABLE TRIGGER asleep, ENABLE REPLICA "
        "TRIGGER replica",
        "trigger always, trigger asleep, trigger replica", audited,
    ),
    "publication": (
        "CREATE PUBLICATION news FOR TABLE docs", "publication news", publication,
    ),
    "rule": (
        "CREATE TABLE logged (id bigint); CREATE RULE tell AS ON INSERT TO docs DO ALSO INSERT "
        "INTO logged VALUES (NEW.id)",
        "rule tell", rule,
    ),
    "rows without a vector column's index": (
        "DROP INDEX docs_by_vector; CREATE VIEW titles AS SELECT id, content FROM docs",
        "view titles", view,
    ),
    "vectors that must not be null": (
        "ALTER TABLE docs ALTER embedding SET NOT NULL; CREATE VIEW titles AS SELECT id, content "
        "FROM docs",
        "view titles", view,
    ),
}  # fmt: skip


@pytest.fixture
def reader_role(docs_url: str) -> Iterator[None]:
    """A role of applications that may nothing yet, `reading`."""
    with psycopg.connect(docs_url, autocommit=True) as connection:
        connection.execute("CREATE ROLE reading")
        yield
        with contextlib.suppress(psycopg.errors.DeadlockDetected):  # with an autovacuum, once
            connection.execute("DROP OWNED BY reading")
        connection.execute("DROP OWNED BY reading")
        connection.execute("DROP ROLE reading")


TOGETHER = (
    ("incoming foreign key", "outgoing foreign key", "view", "publication"),
    ("deferred foreign key", "own foreign key", "materialized view", "trigger before updates",
     "grants"),
    ("vectors that must not be null", "policies", "triggers of every state", "rule"),
    ("rows without a vector column's index", "row-level security"),
)  # fmt: skip
"""Every kind of HANGING once; those of a line do not get in each other's way."""


def hang(url: str, folder: Path, *kinds: str) -> tuple[Path, str]:
    """Hang these on the table. Returns a manifest, and what its plan says of the table."""
    with app(url) as docs:
        for kind in kinds:
            docs.connection.execute(HANGING[kind][0])
    path = pg_manifest(folder, url)
    return path, " ".join(problem.message for problem in migration(path).plan().warnings)


@pytest.mark.parametrize("kind", HANGING)
def test_each_of_what_can_hang_on_a_table_keeps_it_in_its_place(
    tmp_path: Path, docs_url: str, reader_role: None, kind: str
) -> None:
    _, notes = hang(docs_url, tmp_path, kind)
    assert f"since these depend on it: {HANGING[kind][1]}. The new vectors are copied" in notes


@pytest.mark.parametrize(
    "kinds", [*TOGETHER, *(pytest.param((kind,), marks=pytest.mark.long) for kind in HANGING)]
)
def test_a_table_that_something_hangs_on_keeps_its_place(
    tmp_path: Path, docs_url: str, reader_role: None, kinds: tuple[str, ...]
) -> None:
    path, notes = hang(docs_url, tmp_path, *kinds)
    assert all(name in notes for kind in kinds for name in HANGING[kind][1].split(", "))
    assert {*HANGING} == {kind for line in TOGETHER for kind in line}
    oid = _oid(docs_url)

    def works(docs: App) -> None:
        for kind in kinds:
            HANGING[kind][2](docs)

    there_and_back(path, docs_url, works)
    assert _oid(docs_url) == oid


def _oid(url: str) -> int:
    with app(url) as docs:
        return int(docs.run("SELECT 'docs'::regclass::oid::bigint")[0][0])


# What allows no exchange

VIEW = "CREATE VIEW titles AS SELECT id FROM docs; "
FORBIDDEN: dict[str, tuple[str, str]] = {
    "partition": (
        "CREATE TABLE whole (LIKE docs) PARTITION BY RANGE (id); ALTER TABLE docs "
        "ALTER id DROP IDENTITY; ALTER TABLE whole ATTACH PARTITION docs DEFAULT",
        "is a partition or inherits from whole",
    ),
    "child": (
        "CREATE TABLE base (id bigint NOT NULL); ALTER TABLE docs INHERIT base",
        "is a partition or inherits from base",
    ),
    "parent": ("CREATE TABLE more () INHERITS (docs)", "is inherited by more"),
    "view of vectors": (
        "CREATE VIEW all_of_it AS SELECT * FROM docs", "the view all_of_it reads the vector column",
    ),
    "materialized view of vectors": (
        "CREATE MATERIALIZED VIEW near AS SELECT id, embedding <=> embedding FROM docs",
        "the view near reads the vector column",
    ),
    "column of its type": (
        "CREATE TABLE kept (doc docs)", "is the type of a column of kept",
    ),
    "trigger of vectors": (
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$; "
        "CREATE TRIGGER moved AFTER UPDATE OF embedding ON docs FOR EACH ROW WHEN (OLD.embedding "
        "IS DISTINCT FROM NEW.embedding) EXECUTE FUNCTION note()",
        "the trigger moved is told of the vector column, and its condition reads it",
    ),
    "policy on vectors": (
        "CREATE POLICY short ON docs USING (vector_norm(embedding) < 1)",
        "the policy short reads the vector column",
    ),
    "published columns": (
        "CREATE PUBLICATION news FOR TABLE docs (id, embedding)",
        "the publication news lists the vector column",
    ),
    "rule on updates": (
        "CREATE RULE never AS ON UPDATE TO docs DO INSTEAD NOTHING",
        "the rule never rewrites updates",
    ),
    "check of vectors": (
        VIEW + "ALTER TABLE docs ADD CONSTRAINT not_zero CHECK (vector_dims(embedding) < 50)",
        "its check not_zero is not true of a vector of 64 dimensions: false",
    ),
    "check that vectors are there": (
        VIEW + "ALTER TABLE docs ADD CONSTRAINT there CHECK (embedding IS NOT NULL)",
        "its check there asks for a vector in every row, and one in quarantine has none: "
        "write it as NOT NULL",
    ),
    "column computed from vectors": (
        VIEW + "ALTER TABLE docs ADD norm float8 GENERATED ALWAYS AS (vector_norm(embedding)) "
        "STORED",
        "its column norm is computed from the vector column",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", FORBIDDEN)
def test_plan_refuses_what_allows_no_exchange_and_names_it(
    tmp_path: Path, docs_url: str, kind: str, command: Command
) -> None:
    statements, named = FORBIDDEN[kind]
    with app(docs_url) as docs:
        docs.connection.execute(statements)
    path = pg_manifest(tmp_path, docs_url)
    plan = migration(path).plan()
    assert [problem.message for problem in plan.blockers] == [f"public.docs: {named}"]
    assert command("run", path).code == 5
    assert traces(docs_url) == []


def test_plan_refuses_a_table_of_another_owner(
    tmp_path: Path, docs_url: str, postgres: PostgresServer
) -> None:
    role = f"guest_{os.getpid()}"
    with psycopg.connect(docs_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(role)))
        connection.execute(sql.SQL("GRANT ALL ON docs TO {}").format(sql.Identifier(role)))
        try:
            path = pg_manifest(tmp_path, postgres.url(connection.info.dbname, role=role))
            owned, rights = migration(path).plan().blockers
            assert (
                "belongs to the role postgres, of which this role is not a member" in owned.message
            )
            assert "may not make tables in the schema 'public'" in rights.message
        finally:
            connection.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(role)))
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


def test_rows_that_a_policy_hides_are_an_error_and_not_lost(
    tmp_path: Path, docs_url: str, postgres: PostgresServer
) -> None:
    role = f"guest_{os.getpid()}"
    with psycopg.connect(docs_url, autocommit=True) as connection:
        for statement in (
            "CREATE ROLE {} LOGIN", "GRANT SELECT ON docs TO {}",
            "ALTER TABLE docs ENABLE ROW LEVEL SECURITY",
            "CREATE POLICY few ON docs TO {} USING (id < 5)",
        ):  # fmt: skip
            connection.execute(sql.SQL(statement).format(sql.Identifier(role)))
        try:
            url = postgres.url(connection.info.dbname, role=role)
            path = pg_manifest(tmp_path, url, swap__kind="config")
            with pytest.raises(PreflightError, match="row-level security policy"):
                migration(path).plan()
        finally:
            connection.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(role)))
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


def test_what_comes_after_the_plan_is_minded_at_the_swap(tmp_path: Path, docs_url: str) -> None:
    path = pg_manifest(tmp_path, docs_url)
    migration(path).run()
    with app(docs_url) as docs:
        docs.run("CREATE VIEW vectors AS SELECT id, embedding FROM docs")
        with pytest.raises(PreflightError, match="the view vectors reads the vector column"):
            migration(path).swap()
        docs.run("DROP VIEW vectors")
        docs.run("CREATE TABLE notes (doc bigint REFERENCES docs)")
        assert migration(path).swap().done
        incoming_key(docs)
        assert docs.wrong_vectors("new") == []
        docs.run("DROP TABLE notes")  # a leaf again: but its columns are exchanged, so back they go
        before = docs.rows()
        assert migration(path).rollback().done
        assert (docs.rows(), docs.wrong_vectors("old")) == (before, [])


# The way back loses nothing


@pytest.mark.parametrize("hanging", ["", VIEW])
def test_a_way_back_killed_between_its_move_and_the_late_writes_is_finished_by_the_next(
    tmp_path: Path, docs_url: str, hanging: str
) -> None:
    with app(docs_url) as docs:
        if hanging:
            docs.connection.execute(hanging)
        path = pg_manifest(tmp_path, docs_url)
        migration(path).run(swap=True)
        docs.rewrite(6, "since the swap")
        killed = work(path, "rollback()", "reembed.sync.carry_back:WayBack.carry_late", 1)
        assert (killed, docs.model, docs.wrong_vectors("old")) == (-9, "old", [])
        assert migration(path).status().state == "rolled back"
        with app(docs_url, run_dir(path).history.shadow_name) as held:
            held.insert("late", 900)
            held.delete(7)
        assert work(path, "rollback()") == 0, outcome(path)
        assert (outcome(path)["swept"], outcome(path)["messages"]) == (2, [])
        rows, content = docs.rows(), _column(docs, "content")
        assert (rows[6][content], rows[900][content]) == ("since the swap", "late")
        assert 7 not in rows and len(rows) == 40
        assert docs.wrong_vectors("old") == []
        assert migration(path).rollback().messages == ["already rolled back"]
        assert migration(path).clean().done
    assert traces(docs_url) == []


@pytest.mark.parametrize(("hanging", "required"), crossed(["", VIEW], [False, True]))
def test_a_record_in_quarantine_keeps_its_old_vector(
    tmp_path: Path, docs_url: str, hanging: str, required: bool
) -> None:
    with app(docs_url) as docs:
        if hanging:
            docs.connection.execute(hanging)
        if required:
            docs.run("ALTER TABLE docs ALTER embedding SET NOT NULL")
        docs.run("UPDATE docs SET content = ' ' WHERE id = 5")
        before = docs.run("SELECT * FROM docs ORDER BY id")
        names = docs.run("SELECT attname FROM pg_attribute WHERE attrelid = 'docs'::regclass AND "
                         "attnum > 0 AND NOT attisdropped AND attname <> 'embedding'")  # fmt: skip
        columns = ", ".join(name for (name,) in names)
        path = pg_manifest(tmp_path, docs_url, verify__allow_quarantined=1)
        migration(path).run(swap=True)
        assert len(docs.wrong_vectors("new")) == (1 if hanging else 0)
        assert docs.run("SELECT count(*) FROM docs") == [(40 if hanging else 39,)]
        assert migration(path).sweep().swept == 0
        docs.rewrite(6, "since the swap")
        assert migration(path).rollback().done
        (row,) = docs.run("SELECT * FROM docs WHERE id = 5")
        assert set(map(str, row)) == set(map(str, before[4])), "its old vector, too"
        assert docs.wrong_vectors("old") == [5], "which was of another text from the start"
        assert [name for (name,) in docs.run(
            "SELECT attnotnull FROM pg_attribute WHERE attrelid = 'docs'::regclass AND attname = "
            "'embedding'"
        )] == [required]  # fmt: skip
        migration(path).run(swap=True)
        if not hanging:  # the old table alone holds the row
            with pytest.raises(LossError, match="last to hold 1 of its 40"):
                migration(path).clean()
        migration(path).clean(accept_loss=not hanging)
        assert docs.run(f"SELECT {columns} FROM docs WHERE id = 7")
    assert traces(docs_url) == []


@pytest.mark.parametrize("hanging", ["", VIEW])
def test_clean_killed_after_it_dropped_the_old_table_never_drops_the_live_one(
    tmp_path: Path, docs_url: str, hanging: str
) -> None:
    with app(docs_url) as docs:
        if hanging:
            docs.connection.execute(hanging)
        path = pg_manifest(tmp_path, docs_url)
        migration(path).run(swap=True)
        before = docs.rows()
        store = open_store(docs_url)
        old = run_dir(path).history.require(events.Census).source["id"]
        store.to_write().drop(old)  # and killed
        assert store.catalog.describe_id(old) is None
        store.to_write().drop(old)
        store.close()
        assert migration(path).clean().done
        assert (docs.rows(), docs.wrong_vectors("new")) == (before, [])
    assert traces(docs_url) == []
