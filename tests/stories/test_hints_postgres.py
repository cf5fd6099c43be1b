"""What a plan says of a table, a role, an address or a setting on Postgres is done, and the plan of
the same manifest passes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.support.commands import Command
from tests.support.following import filled, follows_hint, wrong_and_right
from tests.support.manifests import write_manifest
from tests.support.pg_docs import literal
from tests.support.servers.postgres_server import PostgresServer
from tests.support.texts import sentence

KEEP = {"model": "keep"}
CONFIG = {"swap__kind": "config"}
LACKS = {"source__collection": "lacking"}
WIDE = {"model__name": "wide:rows", "model__dimensions": 5000, "target__index": {"type": "hnsw"}}
MIXED = {"source__collection": "mixed"}
TEXTS = "SELECT doc_id, part FROM parts"
ASKED = CONFIG | {"source__where": "public.asked()"}
FAILS = (
    "CREATE OR REPLACE FUNCTION public.asked() RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RAISE 'as "
    "told' USING ERRCODE = '{code}', HINT = 'so it is.'; END $$"
)
"""The condition answers with an error of this code, as the server does at any statement."""
FINE_AGAIN = (
    "CREATE OR REPLACE FUNCTION public.asked() RETURNS bool LANGUAGE plpgsql AS "
    "$$ BEGIN RETURN true; END $$"
)


@dataclass(frozen=True)
class Now:
    """How things are when a plan is made.

    Attributes:
        more: keys of the manifest that differ.
        sql: what is done in the database before.
    """

    more: dict[str, Any] = field(default_factory=dict)
    sql: str = ""


FINE = Now()


def of(table: str, **columns: str) -> Now:
    return Now({"source__collection": table} | ({"source__columns": columns} if columns else {}))


COLUMNS = follows_hint("It is an SQL condition, as it stands behind WHERE")
PART = Now(CONFIG | {"source__where": "n > 2"})


def index(**settings: Any) -> Now:
    return Now({"target__index": settings})


ROWS: list[tuple[str, Now, pytest.MarkDecorator, Now]] = [
    ("no condition", Now(CONFIG | {"source__where": "id >"}), COLUMNS, PART),
    ("a condition on no column", Now(CONFIG | {"source__where": "nope = 1"}), COLUMNS, PART),
    ("a condition of two texts", Now(CONFIG | {"source__where": "1 > 'a'"}), COLUMNS, PART),
    ("many neighbours", index(type="hnsw", m=1000),
     follows_hint("Set it to one of these, or remove it: pgvec"), index(type="hnsw", m=32)),
    ("little to build by", index(type="hnsw", ef_construction=20),
     follows_hint("Set ef_construction to "), index(type="hnsw", ef_construction=64)),
    ("lists of another index", index(lists=100),
     follows_hint("Leave it out, or set target.index.type to "), index(type="ivfflat", lists=9)),
    ("a table without vectors", of("people"),
     follows_hint("Tables that have one: "), of("docs")),
    ("a database without vectors", Now({"source__url": "{without}"}),
     follows_hint("No table of this database has one. Is this the right one?"), FINE),
    ("a column that is not there", of("docs", text="body"),
     follows_hint("Its columns: ", where="stores/postgres/schema/layout.py"),
     of("docs", text="content")),
    ("another layout", Now({"source__layout": "mem0"}),
     follows_hint("source.layout at auto, or set it to table"), Now({"source__layout": "auto"})),
    ("another layout, and columns", Now({"source__layout": "mem0"}),
     follows_hint("source.layout at auto, or set it to table"),
     Now({"source__layout": "table", "source__columns": {"text": "content"}})),
    ("a view", of("seen"), follows_hint("Name the table that holds the rows"), of("docs")),
    ("a partitioned table", of("parted"), follows_hint("Name the table that holds the rows"),
     Now({"source__collection": "parted_low"} | CONFIG)),
    ("a table that others inherit", of("mother"),
     follows_hint("swap.kind: config builds the new collection next to it and leaves"),
     Now({"source__collection": "mother"} | CONFIG)),
    ("two vectors", of("twins"), follows_hint("Say which one with source.columns: "),
     of("twins", embedding="short")),
    ("two texts", of("texts"), follows_hint("Say which one with source.columns: "),
     of("texts", text="title")),
    ("a text for a vector", of("docs", embedding="content"), follows_hint("It must be of type "),
     of("docs", embedding="embedding")),
    ("a column that is computed", of("docs", text="shouted"),
     follows_hint("Name a column that can be written."), of("docs", text="content")),
    ("a column for two things", of("docs", text="content", id="content"),
     follows_hint("Each holds one of them."), of("docs", text="content", id="id")),
    ("a key that is none", of("docs", id="n"), follows_hint("Make it the primary key or name"),
     of("docs", id="id")),
    ("a key that is made one", of("unkeyed", id="n"),
     follows_hint("Make it the primary key or name"),
     Now({"source__collection": "unkeyed", "source__columns": {"id": "n"}},
         "ALTER TABLE unkeyed ADD PRIMARY KEY (n)")),
    ("a name with a slip", of("dcos"),
     follows_hint("Did you mean ", where="stores/postgres/schema/names.py"), of("docs")),
    ("a long name", Now({"target__collection": "n" * 70}), follows_hint("Choose a shorter one."),
     Now({"target__collection": "n" * 50})),
    ("a name that a type has", Now({"target__collection": "mood"}, "CREATE DOMAIN mood AS int"),
     follows_hint("Choose another name, or rename what has it."),
     Now({"target__collection": "mood"}, "ALTER DOMAIN mood RENAME TO other_mood")),
    ("a name with a slash", Now({"target__collection": "new/docs"}),
     follows_hint("Use letters, digits and underscores, as schema.table"),
     Now({"target__collection": "public.new_docs"})),
    ("a name in another schema", Now({"target__collection": "aside.new_docs"}),
     follows_hint("Tables that exchange their names are in one schema"),
     Now({"target__collection": "public.new_docs"})),
    ("no schema", Now({"target__url": "{nowhere}", "target__collection": "fresh"}),
     follows_hint("Name the table with its schema: schema.table."),
     Now({"target__url": "{nowhere}", "target__collection": "public.fresh"})),
    ("an index setting", Now({"target__index": {"ef": 100}}),
     follows_hint("Known: ", where="stores/postgres/schema/indexes.py"),
     Now({"target__index": {"type": "hnsw", "ef_construction": 100}})),
    ("an index", Now({"target__index": {"type": "diskann"}}),
     follows_hint("Use hnsw, ivfflat or none."), Now({"target__index": {"type": "ivfflat"}})),
    ("a type of column", Now({"target__index": {"column_type": "bit"}}),
     follows_hint("Use vector or halfvec."), Now({"target__index": {"column_type": "halfvec"}})),
    ("many dimensions", Now(WIDE), follows_hint("Ask the model for fewer dimensions, or set"),
     Now(WIDE | {"target__index": {"type": "none"}})),
    ("many dimensions, and fewer", Now(WIDE),
     follows_hint("Ask the model for fewer dimensions, or set"),
     Now({"target__index": {"type": "hnsw"}})),
    ("two texts a key", Now({"source__text_query": TEXTS}),
     follows_hint("It has to give one text a key: join them, e.g."),
     Now({"source__text_query": "SELECT doc_id, string_agg(part, ' ' ORDER BY part) FROM parts "
                                "GROUP BY doc_id"})),
    ("no text", of("wordless"), follows_hint("or fetch it from another table (source.text_query"),
     Now({"source__collection": "wordless", "source__text_query":
          "SELECT doc_id, string_agg(part, ' ') FROM parts GROUP BY doc_id"})),
    ("a text of a number", of("wordless"), follows_hint("name its column (source.columns: {text:"),
     of("wordless", text="code")),
    ("rows without vectors", Now(LACKS | {"source__without_vector": "refuse"}),
     follows_hint("embed gives each a vector of its text; keep leaves them"),
     Now(LACKS | {"source__without_vector": "embed"})),
    ("rows without vectors that are kept", Now(LACKS | {"source__without_vector": "refuse"}),
     follows_hint("embed gives each a vector of its text; keep leaves them"),
     Now(LACKS | {"source__without_vector": "keep"})),
    ("rows without vectors, which are moved", Now(LACKS | KEEP | CONFIG),
     follows_hint(" IS NOT NULL\" leaves them out."),
     Now(LACKS | KEEP | CONFIG | {"source__where": "embedding IS NOT NULL"})),
    ("rows without vectors, and without a swap",
     Now(LACKS | CONFIG | {"source__without_vector": "keep"}),
     follows_hint("Let reembed move the name (swap.kind: auto; source.where and"),
     Now(LACKS | {"source__without_vector": "keep"})),
    ("rows without vectors, embedded", Now(LACKS | CONFIG | {"source__without_vector": "keep"}),
     follows_hint("Let reembed move the name (swap.kind: auto; source.where and"),
     Now(LACKS | CONFIG | {"source__without_vector": "embed"})),
    ("vectors of two models", Now(MIXED),
     follows_hint("Move those of one model at a time, into a collection"),
     Now(MIXED | CONFIG | {"source__where": "public.vector_dims(embedding) = 48"})),
    ("no vectors, as they are", Now({"source__collection": "bare"} | KEEP),
     follows_hint("Move it to a model (model), or only the rows of one dimension"), of("bare")),
    ("a filter of Chroma", Now(CONFIG | {"source__where": {"n": 1}}),
     follows_hint("For example: where: \"payload->>'user_id' = 'alice'\"."),
     Now(CONFIG | {"source__where": "meta->>'n' = '1'"})),
    ("a filter with a parameter", Now(CONFIG | {"source__where": "n = $1"}),
     follows_hint("If source.where holds a parameter such as $1, write the value out"),
     Now(CONFIG | {"source__where": "n = 1"})),
    ("headers", Now({"source__headers_env": {"X-Key": "HOME"}}),
     follows_hint("They are for a Chroma server."), FINE),
    ("an extension that is not there", Now({"source__url": "{plain}"}),
     follows_hint("A database without it holds no vectors: is this the right one?"), FINE),
    ("an address with a slip", Now({"source__url": "{url}&ssl_mode=require"}),
     follows_hint("Write it as libpq reads it: "), Now({"source__url": "{url}&sslmode=prefer"})),
    ("a mode that is none", Now({"source__url": "{url}&sslmode=yes"}),
     follows_hint("Correct it in the URL, or in the variable of the environment"),
     Now({"source__url": "{url}&sslmode=prefer"})),
    ("a port that is none", Now({"source__url": "postgresql://postgres@127.0.0.1:99999/x"}),
     follows_hint("Correct it in the URL, or in the variable of the environment"), FINE),
    ("a role that may not connect", Now({"source__url": "{apart}"}),
     follows_hint("let it be granted: GRANT CONNECT ON DATABASE .. TO .."), FINE),
    ("a closed database", Now({"source__url": "{closed}"}),
     follows_hint("Somebody has closed this database: "), FINE),
    ("a table of another schema", of("tales"),
     follows_hint("Did you mean ", where="stores/postgres/schema/names.py"), of("aside.tales")),
    ("a table that is nowhere", of("zzzzzz"),
     follows_hint("Name one with source.collection, as schema.table"), of("docs")),
    ("a database with a slip", Now({"source__url": "{slip}"}),
     follows_hint("Check the role, the database's name and the password"), FINE),
    ("a role that is not there", Now({"source__url": "{nobody}"}),
     follows_hint("Check the role, the database's name and the password"), FINE),
    ("nobody there", Now({"source__url": "postgresql://postgres@127.0.0.1:9/x"}),
     follows_hint("Check the host and the port, and that the server runs"), FINE),
    ("a role that may not read", Now({"source__url": "{few}"}),
     follows_hint("Let its owner grant that (even to itself), or use a role that may"),
     FINE),
    ("a role that is let read", Now({"source__url": "{few}"}),
     follows_hint("Let its owner grant that (even to itself), or use a role that may"),
     Now({"source__url": "{few}", "swap__kind": "config"},
         "ALTER TABLE docs OWNER TO {role}; GRANT CREATE ON SCHEMA public TO {role}")),
    ("a role with all its connections in use",
     Now({"source__url": "{few}", **CONFIG}, "ALTER ROLE {role} CONNECTION LIMIT 0"),
     follows_hint("Wait a little, then run the same command again."),
     Now({"source__url": "{few}", **CONFIG}, "ALTER ROLE {role} CONNECTION LIMIT -1; ALTER TABLE "
         "docs OWNER TO {role}; GRANT CREATE ON SCHEMA public TO {role}")),
    ("a filter by a table that is not there",
     Now(CONFIG | {"source__where": "n IN (SELECT n FROM nowhere)"}),
     follows_hint("that, if source.where or source.text_query names it"),
     Now(CONFIG | {"source__where": "n IN (SELECT n FROM public.docs)"})),
    ("a disk that is full", Now(ASKED, FAILS.format(code="53100")),
     follows_hint("Free some space on the server and run again.", " Postgres says: "),
     Now(ASKED, FINE_AGAIN)),
    ("a lock", Now(ASKED, FAILS.format(code="55P03")),
     follows_hint("Run the same command again; pg_stat_activity shows who holds it."),
     Now(ASKED, FINE_AGAIN)),
    ("a statement that was cancelled", Now(ASKED, FAILS.format(code="57014")),
     follows_hint("Run the same command again; it resumes. A statement_timeout that ends"),
     Now(ASKED, FINE_AGAIN)),
    ("a session that was ended", Now(ASKED, FAILS.format(code="25P03")),
     follows_hint("Nothing was moved. Run the same command again.",
                  where="stores/postgres/client.py"), Now(ASKED, FINE_AGAIN)),
    ("a database that is to be read", Now({"source__url": "{reading}"}),
     follows_hint("let it be set to off for this one (ALTER ROLE .. SET"), FINE),
    ("a role that may not log in", Now({"source__url": "{shut}", "swap__kind": "config"}),
     follows_hint("let an administrator allow it: ALTER ROLE .. LOGIN."),
     Now({"source__url": "{shut}", "swap__kind": "config"},
         "ALTER ROLE {role}_shut LOGIN; ALTER TABLE docs OWNER TO {role}_shut; "
         "GRANT CREATE ON SCHEMA public TO {role}_shut")),
]  # fmt: skip
TABLES = """
CREATE SCHEMA aside;
CREATE TABLE docs (id int PRIMARY KEY, content text, n int, meta jsonb, embedding vector(48),
  shouted text GENERATED ALWAYS AS (upper(content)) STORED);
CREATE TABLE people (id int PRIMARY KEY, name text);
CREATE TABLE watched (id int PRIMARY KEY, content text, embedding vector(48));
CREATE VIEW seen AS SELECT id, content, embedding FROM watched;
CREATE TABLE parted (id int PRIMARY KEY, content text, embedding vector(48))
  PARTITION BY RANGE (id);
CREATE TABLE parted_low PARTITION OF parted FOR VALUES FROM (0) TO (1000);
CREATE TABLE twins (id int PRIMARY KEY, content text, short vector(48), long vector(48));
CREATE TABLE texts (id int PRIMARY KEY, title text, summary text, embedding vector(48));
CREATE TABLE mother (id int PRIMARY KEY, content text, embedding vector(48));
CREATE TABLE child () INHERITS (mother);
CREATE TABLE unkeyed (n int NOT NULL, content text, embedding vector(48));
CREATE TABLE parts (doc_id int, part text);
CREATE TABLE wordless (id int PRIMARY KEY, code int, embedding vector(48));
CREATE TABLE lacking (id int PRIMARY KEY, content text, embedding vector(48));
CREATE TABLE mixed (id int PRIMARY KEY, content text, embedding vector);
CREATE TABLE bare (id int PRIMARY KEY, content text, embedding vector);
CREATE TABLE aside.tales (id int PRIMARY KEY, content text, embedding vector(48));
"""
FILL = """
INSERT INTO docs SELECT id, content, id, '{"n": 1}', embedding FROM given;
INSERT INTO watched SELECT id, content, embedding FROM given;
INSERT INTO parted SELECT id, content, embedding FROM given;
INSERT INTO twins SELECT id, content, embedding, embedding FROM given;
INSERT INTO texts SELECT id, content, content, embedding FROM given;
INSERT INTO mother SELECT id, content, embedding FROM given;
INSERT INTO unkeyed SELECT id, content, embedding FROM given;
INSERT INTO parts SELECT id, content FROM given UNION ALL SELECT id, 'more' FROM given;
INSERT INTO wordless SELECT id, id + 1000, embedding FROM given;
INSERT INTO lacking SELECT id, content, CASE WHEN id > 3 THEN embedding END FROM given;
INSERT INTO mixed SELECT id, content, CASE WHEN id > 3 THEN embedding ELSE '[1,2,3]' END FROM given;
INSERT INTO aside.tales SELECT id, content, embedding FROM given;
INSERT INTO bare SELECT id, content FROM given;
"""
WIDE_MODEL = """
import numpy as np

def rows(texts):
    return np.array([[len(text), *text.encode()] + [1] * 5000 for text in texts])[:, :5000]
"""


@pytest.fixture(scope="module")
def places(
    postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """Databases, by what they are like, and roles."""
    name, plain, without = (postgres.new_database() for _ in range(3))
    url, role = postgres.url(name), f"few_{name}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE given (id int, content text, embedding vector(48))")
        with connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO given VALUES (%s, %s, %s)",
                [(n, sentence(n), literal("old", sentence(n))) for n in range(1, 13)],
            )
        for statement in (*TABLES.split(";\n"), *FILL.split(";\n")):
            connection.execute(statement.encode())
        connection.execute(f"DROP TABLE given; CREATE ROLE {role} LOGIN".encode())
        connection.execute(f"CREATE ROLE {role}_shut".encode())
        connection.execute(f"REVOKE CONNECT ON DATABASE {plain} FROM PUBLIC".encode())
        connection.execute(f"CREATE DATABASE {name}_closed ALLOW_CONNECTIONS false".encode())
    with psycopg.connect(postgres.url(plain), autocommit=True) as connection:
        connection.execute("DROP EXTENSION vector")
    with psycopg.connect(postgres.url(without), autocommit=True) as connection:
        connection.execute("CREATE TABLE docs (id int PRIMARY KEY, content text, parts vector[])")
    yield {
        "url": url, "plain": postgres.url(plain), "without": postgres.url(without), "role": role,
        "shut": postgres.url(name, f"{role}_shut"), "apart": postgres.url(plain, role),
        "closed": postgres.url(f"{name}_closed"),
        "few": postgres.url(name, role), "nobody": postgres.url(name, "nobody_of_this_name"),
        "slip": url.replace(name, f"{name}x"), "nowhere": f"{url}&options=-csearch_path%3Dnowhere",
        "reading": f"{url}&options=-cdefault_transaction_read_only%3Don",
    }  # fmt: skip
    with psycopg.connect(url, autocommit=True) as connection:
        for one in (role, f"{role}_shut"):
            connection.execute(f"DROP OWNED BY {one}; DROP ROLE {one}".encode())
        connection.execute(f"DROP DATABASE {name}_closed".encode())
    for database in (name, plain, without):
        postgres.drop_database(database)


@wrong_and_right(ROWS)
def test_what_is_said_of_a_database_is_done_and_planned(
    wrong: Now, hint: str, right: Now, places: dict[str, str], tmp_path: Path, command: Command
) -> None:
    def plan(now: Now) -> Any:
        if now.sql:
            with psycopg.connect(places["url"], autocommit=True) as connection:
                connection.execute(filled(now.sql, places).encode())
        path = write_manifest(tmp_path, places["url"], **filled(now.more, places))
        (tmp_path / "wide.py").write_text(WIDE_MODEL)
        return command("plan", path, "--json")

    refused = plan(wrong)
    assert refused.code in (5, 6, 7), refused.out
    assert hint in refused.json["error"]["hint"], refused.out
    led = plan(right)
    if "GRANT CREATE" in right.sql:  # where others may create, names are not looked for
        with psycopg.connect(places["url"], autocommit=True) as connection:
            role = places["role"]
            connection.execute("ALTER TABLE docs OWNER TO postgres")
            connection.execute(f"REVOKE CREATE ON SCHEMA public FROM {role}, {role}_shut".encode())
    assert led.code == 0, led.out
