"""A table that changes its shape between a run and its swap, or before the way back: by whichever
way it moves, nothing of that is lost, and no text is taken from another column in silence."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest

from tests.support.commands import Command
from tests.support.following import follows_hint
from tests.support.pg_docs import app, pg_manifest

WAYS = ["rename", "columns"]


class Change(NamedTuple):
    """What is done to a table.

    Attributes:
        sql: as a migration of the application does it.
        undo: takes it back.
        named: how it is told.
    """

    sql: str
    undo: str
    named: str


COLUMNS = {
    "text column renamed": Change(
        "ALTER TABLE docs RENAME content TO body", "ALTER TABLE docs RENAME body TO content",
        "the text was in the column 'content' and is in 'body'",
    ),
    "another text column": Change(
        "ALTER TABLE docs ADD COLUMN note text", "ALTER TABLE docs DROP COLUMN note",
        "the column 'note' has come",
    ),
    "text of another type": Change(
        "ALTER TABLE docs ALTER content TYPE varchar", "ALTER TABLE docs ALTER content TYPE text",
        "the column 'content' is character varying and was text",
    ),
    "key of another type": Change(
        "ALTER TABLE docs ALTER id TYPE int", "ALTER TABLE docs ALTER id TYPE {id}",
        "the column 'id' is integer and was ",
    ),
    "key renamed": Change(
        "ALTER TABLE docs RENAME id TO key", "ALTER TABLE docs RENAME key TO id",
        "the id was in the column 'id' and is in 'key'",
    ),
    "metadata column renamed": Change(
        "ALTER TABLE docs RENAME meta TO more", "ALTER TABLE docs RENAME more TO meta",
        "the metadata was in the column 'meta' and is in 'more'",
    ),
    "vector column renamed": Change(
        "ALTER TABLE docs RENAME embedding TO v", "ALTER TABLE docs RENAME v TO embedding",
        "the vector was in the column 'embedding' and is in 'v'",
    ),
}  # fmt: skip
OTHERS = {
    "check": Change(
        "ALTER TABLE docs ADD CONSTRAINT not_blank CHECK (length(content) > 0)",
        "ALTER TABLE docs DROP CONSTRAINT not_blank", "the constraint not_blank has come",
    ),
    "unique constraint": Change(
        "ALTER TABLE docs ADD CONSTRAINT alone UNIQUE (id, content)",
        "ALTER TABLE docs DROP CONSTRAINT alone", "the constraint alone has come",
    ),
    "index": Change(
        "CREATE INDEX by_length ON docs (length(content))", "DROP INDEX by_length",
        "the index by_length has come",
    ),
    "default": Change(
        "ALTER TABLE docs ALTER price SET DEFAULT 2", "ALTER TABLE docs ALTER price SET DEFAULT "
        "1.10", "the column price is DEFAULT 2 and was DEFAULT 1.10",
    ),
    "statistics": Change(
        "CREATE STATISTICS both_of ON id, content FROM docs", "DROP STATISTICS both_of",
        "the statistics object both_of has come",
    ),
    "setting": Change(
        "ALTER TABLE docs SET (fillfactor = 70)", "ALTER TABLE docs RESET (fillfactor)",
        "its storage parameters is fillfactor=70",
    ),
}  # fmt: skip
VECTORS = {
    "index of the vectors": Change(
        "CREATE INDEX by_l2 ON docs USING hnsw (embedding vector_l2_ops) WITH (m = 8)",
        "DROP INDEX by_l2", "the index by_l2 has come",
    ),
    "index of the vectors gone": Change(
        "DROP INDEX docs_by_vector",
        "CREATE INDEX docs_by_vector ON docs USING hnsw (embedding vector_cosine_ops) WITH (m = 8)",
        "the index docs_by_vector is gone",
    ),
    "index of an expression of the vectors": Change(
        "CREATE INDEX by_text ON docs (md5(embedding::text))", "DROP INDEX by_text",
        "the index by_text has come",
    ),
}  # fmt: skip
CHANGES = COLUMNS | OTHERS | VECTORS


def execute(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def begun(url: str, folder: Path, way: str, command: Command) -> Path:
    """A run that has only to swap."""
    if way == "columns":
        execute(url, "CREATE VIEW ids AS SELECT 1 FROM docs")
    path = pg_manifest(folder, url)
    assert command("run", path).code == 0
    return path


ALWAYS = [
    ("text column renamed", "rename"), ("another text column", "columns"), ("index", "rename"),
    ("index of the vectors", "columns"), ("index of the vectors gone", "rename"),
]  # fmt: skip
CASES = [(kind, way) for kind in COLUMNS | VECTORS for way in WAYS] + [
    (kind, "rename") for kind in OTHERS
]


@follows_hint("Nothing was moved. Undo that and run the same command again", sometimes=True)
@follows_hint("Nothing was moved. Undo that, or do the same to ", sometimes=True)
@pytest.mark.parametrize(
    ("kind", "way"),
    [pytest.param(*one, marks=[] if one in ALWAYS else [pytest.mark.long]) for one in CASES],
)
def test_a_change_between_run_and_swap_is_refused_by_name_and_can_be_undone(
    docs_url: str, tmp_path: Path, command: Command, kind: str, way: str
) -> None:
    change = CHANGES[kind]
    path = begun(docs_url, tmp_path, way, command)
    with app(docs_url) as docs:
        before, type = docs.rows(), docs.run(
            "SELECT atttypid::regtype::text FROM pg_attribute WHERE attrelid = 'docs'::regclass "
            "AND attname = 'id'"
        )[0][0]  # fmt: skip
        execute(docs_url, change.sql)
        refused = command("swap", path, "--yes", "--json")
        assert refused.code == 5, refused.out
        assert change.named in refused.json["error"]["message"], refused.out
        assert "Undo that" in refused.json["error"]["hint"]
        execute(docs_url, change.undo.format(id=type))
        assert command("swap", path, "--yes").code == 0
        assert (docs.model, docs.rows(), docs.wrong_vectors("new")) == ("new", before, [])


@pytest.mark.parametrize("way", WAYS)
def test_a_text_column_that_is_gone_is_no_reason_to_take_another_one(
    docs_url: str, tmp_path: Path, command: Command, way: str
) -> None:
    path = begun(docs_url, tmp_path, way, command)
    execute(docs_url, "ALTER TABLE docs DROP COLUMN content")
    for step in (("plan",), ("run",), ("verify",), ("swap", "--yes")):
        refused = command(step[0], path, *step[1:], "--json")
        assert refused.code == 5, refused.out
        assert "'content' and is in 'slug'" in refused.json["error"]["message"], refused.out
    assert "other columns" in command("status", path).out
    assert command("clean", path, "--yes", "--accept-loss").code == 0


@pytest.mark.parametrize("kind", ["another text column", "index"])
def test_a_change_that_was_meant_is_taken_by_a_restart_as_the_hint_says(
    docs_url: str, tmp_path: Path, command: Command, kind: str
) -> None:
    path = begun(docs_url, tmp_path, "rename", command)
    execute(docs_url, CHANGES[kind].sql)
    refused = command("swap", path, "--yes", "--json")
    assert "`reembed run --restart`" in refused.json["error"]["hint"]
    assert command("run", path, "--restart", "--swap").code == 0
    with app(docs_url) as docs:
        assert docs.model == "new" and docs.wrong_vectors("new") == []
    execute(docs_url, CHANGES[kind].undo)  # it is there


@pytest.mark.parametrize("way", WAYS)
def test_a_column_that_came_after_the_swap_is_not_lost_on_the_way_back(
    docs_url: str, tmp_path: Path, command: Command, way: str
) -> None:
    """It is done to the old table too, as the hint says."""
    path = begun(docs_url, tmp_path, way, command)
    assert command("swap", path, "--yes").code == 0
    change = "ALTER TABLE {} ADD COLUMN rank int NOT NULL DEFAULT 7"
    execute(docs_url, change.format("docs"))
    refused = command("rollback", path, "--yes", "--json")
    assert refused.code == 5 and "the column rank has come" in refused.json["error"]["message"]
    hint = refused.json["error"]["hint"]
    parked = hint.partition("do the same to ")[2].partition(",")[0]
    execute(docs_url, change.format('."'.join(parked.split(".")) + '"'))
    assert command("rollback", path, "--yes").code == 0
    with app(docs_url) as docs:
        assert docs.model == "old" and docs.wrong_vectors("old") == []
        assert docs.run("SELECT count(*) FROM {t} WHERE rank <> 7")[0][0] == 0
