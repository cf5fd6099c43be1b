"""`reembed init` and `plan` on Postgres: each table with its layout, units once, a manifest."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
import yaml

from reembed.manifest import Manifest
from reembed.migration import Migration
from tests.support.commands import Command
from tests.support.manifests import write_manifest
from tests.support.pg_scene import Scene, written
from tests.support.texts import sentence, vector_of

TABLES = """
CREATE TABLE memories (id uuid PRIMARY KEY, vector vector(48), payload jsonb);
CREATE TABLE memories_entities (id uuid PRIMARY KEY, vector vector(48), payload jsonb);
CREATE INDEX ON memories USING hnsw (vector vector_cosine_ops);
INSERT INTO memories SELECT gen_random_uuid(), array_fill(1, ARRAY[48])::vector,
  '{"data": "tea"}' FROM generate_series(1, 5);
INSERT INTO memories_entities SELECT gen_random_uuid(), array_fill(1, ARRAY[48])::vector,
  '{"data": "Ann"}' FROM generate_series(1, 3);
CREATE TABLE alone_entities (id uuid PRIMARY KEY, vector vector(8), payload jsonb);
CREATE TABLE langchain_pg_embedding (id varchar PRIMARY KEY, collection_id uuid, embedding vector,
  document varchar, cmetadata jsonb);
CREATE TABLE v2 (langchain_id uuid PRIMARY KEY, content text NOT NULL, embedding vector(12)
  NOT NULL, langchain_metadata json);
CREATE TABLE data_docs (id bigserial PRIMARY KEY, text varchar NOT NULL, metadata_ json,
  node_id varchar, embedding halfvec(24), text_search_tsv tsvector GENERATED ALWAYS AS
  (to_tsvector('english', text)) STORED);
CREATE TABLE articles (slug text PRIMARY KEY, body text, embedding vector(16));
CREATE INDEX ON articles USING ivfflat (embedding vector_l2_ops) WITH (lists = 2);
CREATE TABLE two_texts (id serial PRIMARY KEY, title text, summary text, embedding vector(4));
CREATE TABLE no_key (body text, embedding vector(4));
CREATE VIEW seen AS TABLE articles;
CREATE TABLE plain (id int);
CREATE SCHEMA app;
CREATE TABLE app.articles (id serial PRIMARY KEY, body text, embedding vector(16));
"""


def test_every_table_is_shown_with_its_layout(postgres_url: str, command: Command) -> None:
    with psycopg.connect(postgres_url) as connection:
        connection.execute(TABLES)
    error = command("init", postgres_url, "--json").json["error"]
    assert error["exit_code"] == 2
    assert "holds 9 collections" in error["message"]
    for told in (
        "`--collection alone_entities` (0 records, layout mem0, 8 dimensions, cosine)",
        "`--collection app.articles` (0 records, layout table, 16 dimensions, cosine)",
        "`--collection articles` (0 records, layout table, 16 dimensions, l2)",
        "`--collection data_docs` (0 records, layout llamaindex, 24 dimensions, cosine)",
        "`--collection langchain_pg_embedding` (0 records, layout langchain, no vectors yet, ",
        "`--collection memories` (8 records, layout mem0, 48 dimensions, cosine)",
        "`--collection v2` (0 records, layout langchain, 12 dimensions, cosine)",
        "two_texts (not as it is: 2 columns of public.two_texts may be the text: title, summary)",
        "no_key (not as it is: public.no_key has no primary key of one column",
    ):
        assert told in error["hint"]
    document = command("init", postgres_url, "--collection", "memories", "--json").json
    assert [one["name"] for one in document["collections"]].count("memories_entities") == 0
    assert sorted(document["refused"]) == ["no_key", "two_texts"]
    assert document["manifest"]["source"] == {
        "url": postgres_url, "collection": "memories", "layout": "mem0", "model": None,
    }  # fmt: skip
    error = command("init", postgres_url, "--collection", "two_texts", "--json").json["error"]
    assert error["exit_code"] == 5
    assert "source.columns: {text: title}" in error["hint"]


def test_the_manifest_written_loads_plans_and_moves(
    postgres_url: str, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(postgres_url, tmp_path, text="body")
    scene.execute(
        "CREATE TABLE docs (id serial PRIMARY KEY, body text, embedding vector(48))",
        "CREATE INDEX ON docs USING hnsw (embedding vector_ip_ops) WITH (m = 8)",
    )
    scene.fill(20)
    monkeypatch.chdir(tmp_path)
    assert command("init", postgres_url, "-o", "new.yaml").code == 0
    text = Path("new.yaml").read_text()
    assert "# Found: 20 records, layout table, 48 dimensions, ip; model not recorded" in text
    data = yaml.safe_load(text)
    data["model"] = {"provider": "python", "name": "counting_model:new", "dimensions": 64}
    data["source"]["model"] = {"provider": "python", "name": "counting_model:old"}
    Path("new.yaml").write_text(yaml.safe_dump(data))
    moving = Migration(Manifest.load("new.yaml"))
    plan = moving.plan()
    assert plan.ok
    notes = " ".join(problem.message for problem in plan.warnings)
    assert (
        "public.docs is laid out as table: id id, text body, metadata none, vector embedding "
        "vector(48)" in notes
    )
    moving.run(swap=True)
    found = command("init", postgres_url, "--collection", "docs", "--json").json
    (docs,) = (one for one in found["collections"] if one["name"] == "docs")
    assert docs["model"] == data["model"]
    assert "model" not in found["manifest"]["source"], "the store has recorded it"
    assert (docs["dimensions"], docs["metric"], docs["index"]["m"]) == (64, "ip", 8)


def test_a_unit_moves_as_one_and_counts_once(postgres_url: str, tmp_path: Path) -> None:
    scene = Scene(
        postgres_url, tmp_path, "memories", source__layout="mem0", vector="vector", text="payload"
    )
    with psycopg.connect(postgres_url) as connection:
        connection.execute(TABLES)
        for table in ("memories", "memories_entities"):
            connection.execute(f"TRUNCATE {table}")
            for number in range(12):
                text = sentence(number)
                connection.execute(
                    f"INSERT INTO {table} VALUES (gen_random_uuid(), %s, jsonb_build_object("
                    "'data', %s::text, 'long', 1.10))",
                    [written(vector_of("old", text)), text],
                )
    moving = scene.migration
    plan = moving.plan()
    assert (plan.ok, plan.records) == (True, 24)
    entities = Scene(postgres_url, tmp_path, "memories_entities", vector="vector")
    before = scene.contents(), entities.contents(), scene.shape(), entities.shape()
    moving.run(swap=True)
    assert (scene.contents(), entities.contents(), scene.shape(), entities.shape()) == before
    for one in (scene, entities):
        assert {len(vector.split(",")) for vector in one.vectors().values() if vector} == {64}
    moving.rollback()
    assert (scene.contents(), entities.contents(), scene.shape(), entities.shape()) == before


@pytest.mark.parametrize("secret", ["hunter2-not-told", "hun/ter2", "%24x%2F9"])
@pytest.mark.parametrize("place", ["user", "parameter"])
def test_a_password_in_the_url_is_used_and_not_written(
    docs_url: str, tmp_path: Path, command: Command, secret: str, place: str
) -> None:
    url = (
        docs_url.replace("postgres@/", f"postgres:{secret}@/")
        if place == "user"
        else f"{docs_url}&%70assword={secret}"
    )
    assert url != docs_url
    drafted = tmp_path / "m.yaml"
    done = [command("init", url, "--collection", "docs", *more)
            for more in ((), ("--json",), ("-o", drafted))]  # fmt: skip
    assert [outcome.code for outcome in done] == [0, 0, 0], done[-1].err
    told = drafted.read_text() + "".join(outcome.out + outcome.err for outcome in done)
    assert secret not in told and "hun/ter2" not in told and "$x/9" not in told
    assert drafted.stat().st_mode & 0o777 == 0o600
    assert yaml.safe_load(drafted.read_text())["source"]["url"] == docs_url
    assert "PGPASSWORD" in drafted.read_text() and "PGPASSWORD" in done[-1].out


def test_a_where_with_a_parameter_is_refused(
    docs_url: str, tmp_path: Path, command: Command
) -> None:
    path = write_manifest(tmp_path, docs_url, source__where="$1 = 1", swap__kind="config")
    error = command("plan", path, "--json").json["error"]
    assert error["exit_code"] == 5
    assert "source.where" in error["hint"] and "$1" in error["hint"]
