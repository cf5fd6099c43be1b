"""A table that is gone is made again from what was written down of it."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import psycopg
import pytest

from reembed.errors import PreflightError
from reembed.stores.registry import open_store

TABLES = {
    "plain": "CREATE TABLE {} (id text PRIMARY KEY, document text, metadata json, uri text, "
    "embedding vector(3))",
    "serial": """CREATE TABLE {} (id bigserial PRIMARY KEY, body text COLLATE "C" NOT NULL,
    tags text[] DEFAULT '{{}}', size int GENERATED ALWAYS AS (length(body)) STORED,
    price numeric(8, 2) DEFAULT 1.5 CHECK (price > 0), embedding vector(3),
    CONSTRAINT only_once UNIQUE (body, price))""",
    "identity": "CREATE TABLE {} (id int GENERATED ALWAYS AS IDENTITY (START 7 INCREMENT 5) "
    "PRIMARY KEY, body text, embedding halfvec(3))",
    "capitals": """CREATE TABLE {} ("Id" uuid DEFAULT gen_random_uuid() PRIMARY KEY,
    "the text" text, embedding vector)""",
}
SHAPE = """
SELECT 'column', attname, format_type(atttypid, atttypmod), attnotnull::text,
  pg_get_expr(adbin, adrelid), attidentity::text, attgenerated::text,
  attcollation::regcollation::text
FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
WHERE attrelid = to_regclass(%(t)s) AND attnum > 0 AND NOT attisdropped
UNION ALL SELECT 'constraint', conname, pg_get_constraintdef(oid), '', '', '', '', ''
FROM pg_constraint WHERE conrelid = to_regclass(%(t)s)
UNION ALL SELECT 'index', c.relname, pg_get_indexdef(indexrelid), '', '', '', '', ''
FROM pg_index JOIN pg_class c ON c.oid = indexrelid WHERE indrelid = to_regclass(%(t)s)
UNION ALL SELECT 'comment', obj_description(to_regclass(%(t)s), 'pg_class'), '', '', '', '', '', ''
UNION ALL SELECT 'grant', grantee::text, privilege_type, '', '', '', '', ''
FROM information_schema.role_table_grants WHERE table_name = 'one'
"""


def shape(connection: psycopg.Connection[Any], table: str) -> list[Any]:
    return sorted(connection.execute(SHAPE, {"t": table}).fetchall(), key=str)


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_is_made_again_as_it_was(postgres_url: str, kind: str) -> None:
    with (
        psycopg.connect(postgres_url, autocommit=True) as connection,
        closing(_Store(postgres_url)) as opened,
    ):
        connection.execute(TABLES[kind].format("one"))
        connection.execute("CREATE INDEX by_null ON one ((embedding IS NULL))")
        connection.execute("COMMENT ON TABLE one IS 'it''s ours'")
        connection.execute("GRANT SELECT ON one TO PUBLIC")
        if kind in ("serial", "identity"):
            connection.execute("INSERT INTO one (body) VALUES ('a'), ('b')")
        before = shape(connection, "one")
        shapes = opened.store.shapes
        assert shapes is not None
        written = shapes.define(opened.store.catalog.describe("one").id)
        connection.execute("DROP TABLE one")
        made = shapes.make(written, "other")
        assert opened.store.catalog.describe("other").id == made
        with pytest.raises(PreflightError, match="taken"):
            shapes.make(written, "other")
        connection.execute("ALTER TABLE other RENAME TO one")
        assert shape(connection, "one") == before
        if kind in ("serial", "identity"):
            connection.execute("INSERT INTO one (body) VALUES ('c')")
            found = connection.execute("SELECT id FROM one").fetchall()
            assert found == [({"serial": 3, "identity": 17}[kind],)], "it goes on counting"


class _Store:
    def __init__(self, url: str) -> None:
        self.store = open_store(url)
        self.close = self.store.close
