"""What may surround a table in Postgres: what it is made of, and where. See `surroundings`."""

from __future__ import annotations

from tests.support.cases.surrounding import Case

COLUMNS: dict[str, Case] = {
    # types
    "column of its type": Case("CREATE TABLE kept (doc docs)", "is the type of a column of kept"),
    "composite type": Case(
        "CREATE TYPE hit AS (doc docs, score real)", "is the type of a column of hit"
    ),
    "domain of rows": Case(
        "CREATE DOMAIN checked AS docs CHECK ((VALUE).id > 0)",
        "type checked is made of its row type",
    ),
    "array of rows": Case("CREATE TABLE kept (docs docs[])", "is the type of a column of kept"),
    "table of a type": Case(
        "CREATE TYPE doc AS (id bigint, content text, embedding vector(48)); DROP TABLE docs; "
        "CREATE TABLE docs OF doc (PRIMARY KEY (id)); INSERT INTO docs SELECT n, 'text ' || n, "
        "array_fill(n, ARRAY[48])::vector FROM generate_series(1, 9) n",
        "is made of the type doc",
    ),
    "domain of vectors": Case(
        "CREATE DOMAIN embedding_48 AS vector(48); ALTER TABLE docs ALTER embedding TYPE "
        "embedding_48",
        "its vector column is of the domain embedding_48",
    ),
    "domain of text": Case(
        "CREATE DOMAIN words AS text CHECK (VALUE <> ''); ALTER TABLE docs ALTER content TYPE words"
    ),
    "enum": Case(
        "CREATE TYPE state AS ENUM ('new', 'old'); ALTER TABLE docs ADD state state DEFAULT 'new'",
        works="SELECT id, state FROM docs ORDER BY id",
    ),
    # columns, keys and checks
    "generated column": Case(
        "ALTER TABLE docs ADD size int GENERATED ALWAYS AS (length(content)) STORED, ADD twice "
        "numeric GENERATED ALWAYS AS (price * 2)",
        works="SELECT id, size, twice FROM docs ORDER BY id",
    ),
    "column computed from vectors": Case(
        "ALTER TABLE docs ADD norm float8 GENERATED ALWAYS AS (vector_norm(embedding)) STORED",
        "its column norm is computed from the vector column",
    ),
    "default of vectors": Case(
        "ALTER TABLE docs ALTER embedding SET DEFAULT array_fill(0.1, ARRAY[48])::vector",
        "its vector column has a default",
    ),
    "foreign key to it": Case(
        "CREATE TABLE notes (doc bigint REFERENCES docs ON DELETE CASCADE); INSERT INTO notes "
        "VALUES (7)",
        works="SELECT content FROM notes JOIN docs ON id = doc",
    ),
    "foreign key from it": Case(
        "CREATE TABLE people (id int PRIMARY KEY); ALTER TABLE docs ADD owner int REFERENCES people"
    ),
    "foreign key of its own": Case("ALTER TABLE docs ADD parent bigint REFERENCES docs"),
    "foreign key to a unique column": Case(
        "CREATE TABLE notes (slug varchar(40)); ALTER TABLE notes ADD CONSTRAINT named FOREIGN KEY "
        "(slug) REFERENCES docs (slug) NOT VALID"
    ),
    "check of rows": Case(
        "ALTER TABLE docs ADD CONSTRAINT whole CHECK (docs IS DISTINCT FROM NULL)",
        "its check whole reads whole rows",
    ),
    "index of rows": Case(
        "CREATE FUNCTION as_key(d docs) RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT d.id'; "
        "CREATE INDEX by_row ON docs (as_key(docs))",
        "its index by_row reads whole rows",
    ),
    "checks not valid or not inherited": Case(
        "ALTER TABLE docs ADD CONSTRAINT late CHECK (id > 3) NOT VALID, ADD CONSTRAINT own CHECK "
        "(id > 0) NO INHERIT",
        "its check late is NOT VALID",
    ),
    "exclusion": Case("ALTER TABLE docs ADD CONSTRAINT once EXCLUDE USING btree (slug WITH =)"),
    "deferred unique": Case(
        "ALTER TABLE docs ADD CONSTRAINT later UNIQUE NULLS NOT DISTINCT (price, id) INCLUDE (slug)"
        " DEFERRABLE INITIALLY DEFERRED"
    ),
    "extended statistics": Case(
        "CREATE STATISTICS pair (ndistinct, mcv) ON slug, price FROM docs; ALTER STATISTICS pair "
        "SET STATISTICS 50"
    ),
    "extended statistics of vectors": Case(
        "CREATE STATISTICS pair (ndistinct) ON slug, embedding FROM docs; CREATE STATISTICS odd ON "
        "slug, (vector_norm(embedding)) FROM docs; ALTER STATISTICS odd SET STATISTICS 33; COMMENT "
        "ON STATISTICS odd IS 'both'"
    ),
    # where it stands
    "child": Case("CREATE TABLE more () INHERITS (docs)", "is inherited by more"),
    "parent": Case(
        "CREATE TABLE base (slug varchar(40)); ALTER TABLE docs INHERIT base",
        "is a partition or inherits from base",
    ),
    "partition": Case(
        "CREATE TABLE whole (LIKE docs) PARTITION BY RANGE (id); ALTER TABLE docs ALTER id DROP "
        "IDENTITY; ALTER TABLE whole ATTACH PARTITION docs DEFAULT",
        "is a partition or inherits from whole",
    ),
    "publication": Case("CREATE PUBLICATION news FOR TABLE docs WHERE (id > 5)"),
    "publication of vectors": Case(
        "CREATE PUBLICATION news FOR TABLE docs (id, embedding)",
        "the publication news lists the vector column",
    ),
    "publication of all": Case("CREATE PUBLICATION news FOR ALL TABLES"),
    "replica identity": Case(
        "ALTER TABLE docs ALTER slug SET NOT NULL, REPLICA IDENTITY USING INDEX docs_slug_key"
    ),
    "clustered": Case("ALTER TABLE docs CLUSTER ON docs_by_price"),
    "settings": Case(
        "ALTER TABLE docs SET (fillfactor = 70, toast.autovacuum_enabled = false); COMMENT ON TABLE"
        " docs IS 'ours'; COMMENT ON INDEX docs_by_price IS 'by price'; ALTER INDEX docs_by_price "
        "SET (fillfactor = 60)"
    ),
    "comments": Case(
        "COMMENT ON COLUMN docs.embedding IS 'by ada'; COMMENT ON COLUMN docs.content IS 'words'; "
        "COMMENT ON CONSTRAINT content_is_short ON docs IS 'short'"
    ),
    "sequence used elsewhere": Case(
        "CREATE TABLE drafts (id bigint DEFAULT nextval('docs_id_seq'))",
        works="SELECT count(*) FROM docs WHERE (SELECT count(*) FROM drafts) = 0",
    ),
    "serial": Case(
        "ALTER TABLE docs ADD place serial; CREATE TABLE drafts (n int DEFAULT "
        "nextval('docs_place_seq')); GRANT USAGE ON docs_place_seq TO {role}"
    ),
    "expression index with statistics": Case(
        "CREATE INDEX by_words ON docs (lower(content)) WHERE price > 2; ALTER INDEX by_words ALTER"
        " 1 SET STATISTICS 33"
    ),
    "unlogged": Case("ALTER TABLE docs SET UNLOGGED"),
    "owner": Case("GRANT CREATE ON SCHEMA public TO {role}; ALTER TABLE docs OWNER TO {role}"),
    "tablespace": Case("ALTER TABLE docs SET TABLESPACE {role}; ALTER INDEX docs_by_price SET "
                       "TABLESPACE {role}"),
}  # fmt: skip
