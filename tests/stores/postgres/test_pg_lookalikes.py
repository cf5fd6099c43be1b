"""Things of the names that captures, notes and claims have, made first by another role."""

from __future__ import annotations

from pathlib import Path

import pytest

from reembed import clean_database
from reembed.errors import PreflightError
from reembed.stores.registry import open_store
from tests.stores.postgres.test_pg_roles import ESCALATE, LEASE, Scene, scene
from tests.support.crossing import crossed
from tests.support.following import follows_hint
from tests.support.manifests import migration
from tests.support.pg_docs import pg_manifest, traces
from tests.support.stores import logging, mark_of

__all__ = ["scene"]
CAPTURE = (
    "CREATE FUNCTION public.reembed_{oid}_capture() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN ALTER ROLE mallory SUPERUSER; RETURN NULL; END $$"
)
LOG = "CREATE TABLE public.reembed_{oid}_log (seq bigserial PRIMARY KEY, op text NOT NULL, id text)"
MADE_FIRST = {
    "a function": (CAPTURE, "the function public.reembed_"),
    "a log": (LOG, "the table public.reembed_"),
    "a view": ("CREATE VIEW public.reembed_{oid}_log AS SELECT 1::bigint AS seq, ''::text AS op, "
               "''::text AS id", "the view public.reembed_"),
    "a type": ("CREATE DOMAIN public.reembed_{oid}_log AS text", "the domain public.reembed_"),
    "a trigger": (
        CAPTURE + "; CREATE TRIGGER zz_reembed_rows AFTER INSERT OR UPDATE OR DELETE ON docs FOR "
        "EACH ROW EXECUTE FUNCTION public.reembed_{oid}_capture()",
        "the trigger zz_reembed_rows on public.docs",
    ),
}  # fmt: skip


def oid(scene: Scene) -> int:
    return int(scene.run("SELECT 'docs'::regclass::oid::bigint")[0][0])


def made_by(scene: Scene, role: str) -> list[tuple[object, ...]]:
    return scene.run(
        "SELECT relname FROM pg_class WHERE relowner = to_regrole('ROLE') UNION ALL SELECT proname "
        "FROM pg_proc WHERE proowner = to_regrole('ROLE') UNION ALL SELECT typname FROM pg_type "
        "WHERE typowner = to_regrole('ROLE') ORDER BY 1".replace("ROLE", role)
    )


@follows_hint("Look at it. If it is nobody's, drop it as its owner or as a superuser with")
@pytest.mark.parametrize(("kind", "role"), crossed(MADE_FIRST, ["postgres", "app"]))
def test_what_another_role_made_first_is_refused_by_plan_and_left_alone(
    scene: Scene, tmp_path: Path, kind: str, role: str
) -> None:
    statement, named = MADE_FIRST[kind]
    scene.run("GRANT TRIGGER ON docs TO mallory")
    scene.run(statement.format(oid=oid(scene)), "mallory")
    theirs = made_by(scene, "mallory")
    path = pg_manifest(tmp_path, scene.url(role))
    plan = migration(path).plan()
    [told] = [
        one for one in plan.blockers if "writes to public.docs cannot be logged" in one.message
    ]
    assert named in told.message
    assert "'mallory'" in told.message
    with pytest.raises(PreflightError, match="cannot be logged"):
        migration(path).run()
    store = open_store(scene.url(role))
    _, capture = logging(store)
    id = store.catalog.describe("docs").id
    with pytest.raises(PreflightError, match="cannot be logged"):
        capture.start(id)
    assert mark_of(store, id) is None
    store.close()
    assert clean_database(scene.url(role), dry_run=False).leftovers == []
    assert made_by(scene, "mallory") == theirs
    assert not scene.escalated
    for drop in [part.split("(DROP ")[1] for part in told.message.split(" and the ")]:
        end = drop.index(")", drop.index("()") + 2 if "()" in drop else 0)
        scene.run(f"DROP {drop[:end]}")
    assert migration(path).run(swap=True).state == "swapped", "what the message says ends it"
    assert migration(path).clean().done
    assert traces(scene.url()) == []


def test_those_in_another_schema_are_neither_used_nor_removed(scene: Scene, tmp_path: Path) -> None:
    scene.run("CREATE SCHEMA theirs AUTHORIZATION mallory")
    made = f"{CAPTURE}; {LOG}; COMMENT ON TABLE public.reembed_{{oid}}_log IS 'capture x of y'"
    scene.run(made.format(oid=oid(scene)).replace("public.", "theirs."), "mallory")
    theirs = made_by(scene, "mallory")
    one = migration(pg_manifest(tmp_path, scene.url()))
    assert one.run(swap=True).state == "swapped"
    assert one.rollback().done
    assert one.clean().done
    assert clean_database(scene.url(), dry_run=False).leftovers == []
    assert made_by(scene, "mallory") == theirs


@pytest.mark.parametrize(
    "meddle",
    [
        "CREATE FUNCTION trap() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN ALTER ROLE app "
        "SUPERUSER; RETURN OLD; END $$; CREATE TRIGGER t BEFORE DELETE ON {log} FOR EACH ROW "
        "EXECUTE FUNCTION trap()",
        "ALTER TABLE {log} RENAME TO away; CREATE VIEW {log} AS SELECT * FROM away",
        "CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER "
        "AS $$ BEGIN RETURN NULL; END $$",
    ],
    ids=["a trigger on the log", "a view as the log", "a function that logs nothing"],
)
def test_a_capture_that_its_owner_changed_is_not_read(scene: Scene, meddle: str) -> None:
    """The owner of the table owns its log, and we may be a superuser."""
    store = open_store(scene.url())
    changes, capture = logging(store)
    id = store.catalog.describe("docs").id
    capture.start(id)
    mark = mark_of(store, id)
    assert mark is not None
    scene.run("UPDATE docs SET content = 'x' WHERE id < 3", "app")
    found = changes.since(id, mark)
    assert found.ids == ["1", "2"]
    number = oid(scene)
    scene.run(
        meddle.format(log=f"reembed_{number}_log", function=f"reembed_{number}_capture"), "app"
    )
    capture.acknowledge(found.token)
    assert changes.since(id, mark).ids is None, "everything is compared"
    assert scene.run("SELECT rolsuper FROM pg_roles WHERE rolname = 'app'") == [(False,)]
    store.close()


@follows_hint("Look at it. If a run made it and the table has got another owner since, it logs")
def test_a_log_whose_table_has_another_owner_by_now_is_told_and_not_left_unsaid(
    scene: Scene, tmp_path: Path
) -> None:
    one = migration(pg_manifest(tmp_path, scene.url()))
    assert one.run(swap=True).state == "swapped"
    scene.run("ALTER TABLE docs OWNER TO helper")
    with pytest.raises(PreflightError, match="the trigger zz_reembed_rows on public") as told:
        one.clean()
    assert "another owner since" in told.value.hint
    for name in ("zz_reembed_rows", "zz_reembed_truncate"):
        assert f"(DROP TRIGGER {name} ON" in told.value.message
        scene.run(f"DROP TRIGGER {name} ON docs")
    assert one.clean().done


@follows_hint("If one of them has got another owner since the swap, give both the same one")
def test_two_tables_that_exchanged_their_vectors_and_got_two_owners(
    scene: Scene, tmp_path: Path
) -> None:
    scene.run("CREATE VIEW stays AS SELECT id FROM docs")
    one = migration(pg_manifest(tmp_path, scene.url("app")))
    assert one.run(swap=True).state == "swapped"
    scene.run("ALTER TABLE docs OWNER TO mallory")
    with pytest.raises(PreflightError, match="they belong to different roles") as told:
        one.rollback()
    assert "give both the same one (ALTER TABLE .. OWNER TO ..)" in told.value.hint
    scene.run("ALTER TABLE docs OWNER TO app")
    assert one.rollback().done


def test_a_table_of_another_role_does_not_stand_in_for_the_collection(
    scene: Scene, tmp_path: Path
) -> None:
    scene.run("GRANT SELECT ON docs TO mallory")
    scene.run("CREATE TABLE public.bait (LIKE docs INCLUDING ALL)", "mallory")
    store = open_store(scene.url())
    bait, docs = (store.catalog.describe(name).id for name in ("bait", "docs"))
    note = f'reembed:{{"of": "{bait}", "stands_for": {docs.rpartition("/")[2]}}}'
    scene.run(f"COMMENT ON COLUMN bait.embedding IS '{note}'", "mallory")
    info = store.catalog.describe_id(docs)
    assert info is not None
    assert (info.name, info.count) == ("docs", 60)
    store.close()
    one = migration(pg_manifest(tmp_path, scene.url()))
    assert one.run(swap=True).state == "swapped"
    assert one.clean().done
    assert scene.run("SELECT count(*) FROM docs") == [(60,)]
    assert scene.run("SELECT count(*) FROM bait") == [(0,)]


def test_claims_that_a_trap_holds_are_neither_read_nor_removed(scene: Scene) -> None:
    scene.run(
        f"{ESCALATE}; {LEASE}; INSERT INTO reembed_lease VALUES ('docs of 1/2/3', 'x'); CREATE "
        "TRIGGER t BEFORE DELETE ON reembed_lease FOR EACH ROW EXECUTE FUNCTION escalate()",
        "mallory",
    )
    assert clean_database(scene.url(), dry_run=False).leftovers == []
    assert scene.run("SELECT count(*) FROM reembed_lease") == [(1,)]
    assert not scene.escalated
