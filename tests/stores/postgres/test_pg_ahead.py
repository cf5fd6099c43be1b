"""Vectors that are copied ahead of an exchange of columns."""

from __future__ import annotations

from pathlib import Path

import psycopg

from tests.support.crash import outcome, work
from tests.support.helpers import sentence
from tests.support.pg_docs import app, pg_manifest

HELD = "reembed.cutover.move:writes_held"
UNIQUE = (
    "CREATE VIEW titles AS SELECT id FROM docs; CREATE UNIQUE INDEX ON docs (md5(embedding::text))"
)


def test_unique_vectors_that_change_rows_between_two_calls_are_copied(
    tmp_path: Path, docs_url: str
) -> None:
    """More of them than are written together, while the killed call's index is there."""
    with psycopg.connect(docs_url, autocommit=True) as connection:
        connection.execute(UNIQUE)
    path = pg_manifest(tmp_path, docs_url)
    assert work(path, "run()") == 0, outcome(path)
    assert work(path, "swap()", HELD, 1) == -9
    with app(docs_url) as docs:
        ids = sorted(docs.rows())
        with docs.connection.transaction():
            docs.run("UPDATE docs SET embedding = NULL")
            for id, other in zip(ids, [*ids[1:], ids[0]], strict=True):
                docs.rewrite(id, sentence(other))
        assert work(path, "swap()") == 0, outcome(path)
        assert docs.model == "new" and docs.wrong_vectors("new") == []
        assert work(path, "rollback()") == 0, outcome(path)
        assert docs.wrong_vectors("old") == []
