"""No neighbour of a moved table is harmed: it is as it was, attribute by attribute, after each step
of a migration, or `plan` refuses the table and says for whose sake."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from reembed.errors import PreflightError
from tests.support.cases.odd_surroundings import ODD_SURROUNDINGS
from tests.support.cases.surrounding import Case
from tests.support.cases.surroundings import SURROUNDINGS
from tests.support.crossing import crossed
from tests.support.manifests import migration
from tests.support.pg_catalog import differences, snapshot
from tests.support.pg_docs import app, pg_manifest, traces

ROLE = f"neighbour_{os.getpid()}"
WAYS = {"rename": "", "columns": "CREATE VIEW stays AS SELECT id FROM docs; "}
"""A leaf table exchanges names; one that a view reads exchanges its vector column."""
ALL = SURROUNDINGS | ODD_SURROUNDINGS
OF_CI = (
    "function by name", "function that returns rows", "policy of another table",
    "replica identity",
)  # fmt: skip


@pytest.fixture
def surrounded(docs_url: str) -> Iterator[str]:
    """The database, with a role and a tablespace of one name for cases to use."""
    with psycopg.connect(docs_url, autocommit=True) as connection:
        named = sql.Identifier(ROLE)
        connection.execute("SET allow_in_place_tablespaces = on")
        connection.execute(sql.SQL("CREATE ROLE {}").format(named))
        connection.execute(sql.SQL("CREATE TABLESPACE {} LOCATION ''").format(named))
    yield docs_url
    with psycopg.connect(docs_url, autocommit=True) as connection:
        connection.execute("SET allow_system_table_mods = on")
        connection.execute("DELETE FROM pg_seclabel")
        connection.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(named))
        connection.execute("DROP TABLE IF EXISTS docs CASCADE")
        connection.execute(sql.SQL("DROP ROLE {}").format(named))
        connection.execute(sql.SQL("DROP TABLESPACE {}").format(named))


def make(url: str, statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET allow_system_table_mods = on")
        connection.execute(statements.format(role=ROLE))


def asked(url: str, case: Case) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(case.works).fetchall()


def refusals(path: Path) -> list[str]:
    """What stands in the way by the plan, be it that the table cannot be read at all."""
    try:
        return [problem.message for problem in migration(path).plan().blockers]
    except PreflightError as error:
        return [error.message]


def there_and_back(url: str, folder: Path, case: Case) -> None:
    before, answer = snapshot(url), asked(url, case)
    path = pg_manifest(folder, url)
    messages = refusals(path)
    if messages:
        assert case.refused and any(case.refused in message for message in messages), messages
        assert differences(before, snapshot(url)) == []
        return
    one = migration(path)
    for step in (one.run, one.swap, one.rollback, one.swap, one.clean):
        step()
        found = differences(before, snapshot(url), more=step != one.clean)
        assert not found, "\n".join([f"after {step.__name__}:", *found])
        assert asked(url, case) == answer
    with app(url) as docs:
        assert docs.wrong_vectors("new") == []
    assert traces(url) == []


@pytest.mark.parametrize(("kind", "way"), crossed(OF_CI, WAYS))
def test_a_neighbour_is_carried(surrounded: str, tmp_path: Path, kind: str, way: str) -> None:
    make(surrounded, WAYS[way] + SURROUNDINGS[kind].statements)
    there_and_back(surrounded, tmp_path, SURROUNDINGS[kind])


@pytest.mark.long
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ALL)
def test_every_neighbour_is_carried_or_named(
    surrounded: str, tmp_path: Path, kind: str, way: str
) -> None:
    with contextlib.suppress(psycopg.errors.DependentObjectsStillExist):
        make(surrounded, WAYS[way] + ALL[kind].statements)
    there_and_back(surrounded, tmp_path, ALL[kind])
