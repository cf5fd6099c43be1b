"""Restores that are more than a copy: into another kind of store, and of a table that much hung on.
What came of them is looked at through the stores' own clients."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import psycopg

from tests.support.chroma_data import chroma_at, plain_collection
from tests.support.commands import Command
from tests.support.manifests import write_manifest
from tests.support.pg_docs import App


def test_a_table_is_restored_into_chroma(tmp_path: Path, docs_url: str, command: Command) -> None:
    kept, url = tmp_path / "backups", f"chroma:{tmp_path / 'new'}"
    with closing(App(docs_url)) as app:
        stored = {
            str(id): json.loads(one) for id, one in app.run("SELECT id, embedding::text FROM {t}")
        }
        texts = {str(id): text for id, text in app.run("SELECT id, content FROM {t}")}
    assert command("backup", docs_url, "--collection", "docs", "-o", kept).code == 0
    done = command("restore", kept, url, "--create", "--yes", "--json")
    assert done.code == 0, done.out
    assert done.json["swapped"] and not done.json["compared"]["problems"]
    with chroma_at(url) as client:
        got: Any = client.get_collection("docs", embedding_function=None).get(
            include=["embeddings", "documents", "metadatas"]
        )
    assert dict(zip(got["ids"], got["documents"], strict=True)) == texts
    for id, vector in zip(got["ids"], got["embeddings"], strict=True):
        np.testing.assert_allclose(vector, stored[id], rtol=1e-6)
    metadata = dict(zip(got["ids"], got["metadatas"], strict=True))
    assert metadata["3"]["meta.n"] == 3 and metadata["3"]["slug"] == "s3"
    again = command("backup", url, "--collection", "docs", "-o", tmp_path / "more", "--json")
    assert again.json["collections"][0]["snapshot"]["records"] == len(stored)


def test_a_chroma_collection_is_restored_into_postgres(
    tmp_path: Path, docs_url: str, command: Command
) -> None:
    url, kept = f"chroma:{tmp_path / 'db'}", tmp_path / "backups"
    with chroma_at(url) as client:
        made = plain_collection(client, "articles", 60)
        got: Any = made.get(include=["embeddings", "documents"])
    assert command("backup", url, "--collection", "articles", "-o", kept).code == 0
    done = command("restore", kept, docs_url, "--yes", "--json")
    assert done.code == 0, done.out
    with psycopg.connect(docs_url) as connection:
        rows = connection.execute(
            "SELECT id, document, metadata->>'title', embedding::text FROM articles"
        ).fetchall()
    there = {id: (text, title, json.loads(vector)) for id, text, title, vector in rows}
    assert there.keys() == set(got["ids"])
    for id, text, vector in zip(got["ids"], got["documents"], got["embeddings"], strict=True):
        assert there[id][:2] == (text, f"title {id[1:]}")
        np.testing.assert_allclose(there[id][2], vector, rtol=1e-6)


HANGING = """
CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER on_write BEFORE INSERT ON docs FOR EACH ROW EXECUTE FUNCTION noted();
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
CREATE POLICY cheap ON docs FOR SELECT USING (price < 10);
CREATE TABLE owners (id bigint PRIMARY KEY);
ALTER TABLE docs ADD owner bigint CONSTRAINT owned REFERENCES owners;
ALTER TABLE docs FORCE ROW LEVEL SECURITY;
ALTER TABLE docs DISABLE TRIGGER on_write;
CREATE PUBLICATION outside FOR TABLE docs;
CREATE PUBLICATION "Few" FOR TABLE docs (id, slug) WHERE (price < 10 AND slug <> 'x');
GRANT UPDATE (slug, content), SELECT (id) ON docs TO pg_monitor WITH GRANT OPTION;
GRANT SELECT (slug) ON docs TO PUBLIC;
CREATE ROLE "Night reader";
GRANT SELECT ON docs TO "Night reader";
GRANT UPDATE (price, meta) ON docs TO "Night reader" WITH GRANT OPTION;
CREATE VIEW titles WITH (security_invoker=true) AS SELECT id, content FROM docs
"""
HUNG = """
SELECT tgname, tgenabled::text FROM pg_trigger WHERE tgname = 'on_write'
UNION ALL SELECT polname, pg_get_expr(polqual, polrelid) FROM pg_policy
UNION ALL SELECT 'rows', relrowsecurity::text || relforcerowsecurity FROM pg_class
  WHERE oid = 'docs'::regclass
UNION ALL SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'owned'
UNION ALL SELECT pubname, concat_ws(' ', prrelid::regclass, prattrs, pg_get_expr(prqual, prrelid))
  FROM pg_publication_rel JOIN pg_publication p ON p.oid = prpubid
UNION ALL SELECT attname, attacl::text FROM pg_attribute WHERE attrelid = 'docs'::regclass
  AND attacl IS NOT NULL
UNION ALL SELECT 'grants', array_agg(one::text ORDER BY one::text)::text
  FROM pg_class, unnest(relacl) one WHERE pg_class.oid = 'docs'::regclass
UNION ALL SELECT reloptions::text, pg_get_viewdef(oid) FROM pg_class WHERE relname = 'titles'
ORDER BY 1
"""


def test_what_hung_on_a_table_is_told_with_the_sql_that_makes_it_again(
    tmp_path: Path, docs_url: str, command: Command
) -> None:
    kept = tmp_path / "backups"
    with psycopg.connect(docs_url, autocommit=True) as connection:
        connection.execute(HANGING)
        before = connection.execute(HUNG).fetchall()
        assert len(before) == 13
        assert command("backup", docs_url, "--collection", "docs", "-o", kept).code == 0
        connection.execute('DROP TABLE docs CASCADE; DROP ROLE "Night reader"')
        done = command("restore", kept, "--json")
        assert done.code == 0, done.out
        told = dict(done.json["not_made_again"])
        assert told.keys() == {
            "trigger on_write", "policy cheap", "row level security", "foreign key owned",
            "view titles", "publication outside", "publication Few",
            "role Night reader", "grants to Night reader",
        }  # fmt: skip
        assert all(name in " ".join(done.json["messages"]) for name in told)
        printed = command("restore", kept, "--yes")
        assert printed.code == 0, printed.out
        _, _, statements = printed.out.partition("once you have looked at it:\n")
        connection.execute(statements)
        assert connection.execute(HUNG).fetchall() == before
        connection.execute('DROP OWNED BY "Night reader"; DROP ROLE "Night reader"')


def test_finished_restores_are_pruned_but_the_newest(
    tmp_path: Path, database: Path, command: Command
) -> None:
    kept, url = tmp_path / "state" / "backups", f"chroma:{database}"
    assert command("backup", url, "--collection", "docs", "-o", kept).code == 0
    for _ in range(3):
        assert command("restore", kept, "--yes").code == 0
        assert command("restore", kept, "--back", "--yes").code == 0
    (place,) = kept.glob("*/restores")
    assert len([one for one in place.iterdir() if one.is_dir()]) == 3
    manifest = write_manifest(tmp_path, url, state=str(tmp_path / "state"))
    listed = command("runs", manifest, "--json")
    assert len(listed.json["restores"]) == 2
    would = command("prune", kept, "--json")
    assert len(would.json["folders"][0]["restores"]) == 2
    assert command("prune", kept, "--yes").code == 0
    assert len([one for one in place.iterdir() if one.is_dir()]) == 1
    assert command("restore", kept, "--yes").code == 0
