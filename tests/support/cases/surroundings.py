"""What may surround a table in Postgres: each of a kind, as an application's migrations make it.

Used by `tests/stores/postgres/test_pg_neighbours.py` on the table of `tests/support/pg_docs.py`.
"""

from __future__ import annotations

from typing import NamedTuple

NOTE = "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$; "
NEAREST = "(SELECT embedding FROM docs WHERE id = 7)"


class Case(NamedTuple):
    """One surrounding.

    Attributes:
        statements: what makes it, role {role} being there.
        refused: what the blocker says if plan refuses it; empty where it must be carried.
        works: a query whose answer is the same all along.
    """

    statements: str
    refused: str = ""
    works: str = "SELECT count(*) FROM docs"


SURROUNDINGS: dict[str, Case] = {
    # functions
    "function by name": Case(
        "CREATE FUNCTION match(query vector(48), n int DEFAULT 5) RETURNS TABLE (id bigint, content"
        " text) LANGUAGE sql STABLE AS 'SELECT id, content FROM docs ORDER BY embedding <=> query "
        "LIMIT n'",
        works=f"SELECT * FROM match({NEAREST}, 1)",
    ),
    "function of plpgsql by name": Case(
        "CREATE FUNCTION match(query vector) RETURNS SETOF bigint LANGUAGE plpgsql AS $$ DECLARE q "
        "docs.embedding%TYPE := query; BEGIN RETURN QUERY SELECT id FROM public.docs ORDER BY "
        "embedding <=> q LIMIT 1; END $$",
        works=f"SELECT * FROM match({NEAREST})",
    ),
    "function whose text pins the length": Case(
        "CREATE FUNCTION match(query vector) RETURNS SETOF bigint LANGUAGE sql AS 'SELECT id FROM "
        "docs ORDER BY embedding <=> query::vector(48) LIMIT 1'",
        "the function match(vector) takes vectors of 48 dimensions alone, as vector(48) in it says",
    ),
    "function whose variable pins the length": Case(
        "CREATE FUNCTION match(query vector) RETURNS bigint LANGUAGE plpgsql AS $$ DECLARE q "
        "VECTOR (48) := query; BEGIN RETURN (SELECT id FROM Docs ORDER BY embedding <=> q LIMIT 1);"
        " END $$",
        "the function match(vector) takes vectors of 48 dimensions alone, as VECTOR (48) in it",
    ),
    "function whose default pins the length": Case(
        "CREATE FUNCTION match(query vector DEFAULT array_fill(0.5, ARRAY[48])::vector(48)) RETURNS"
        " SETOF bigint LANGUAGE sql AS 'SELECT id FROM docs ORDER BY embedding <=> query LIMIT 1'",
        "the function match(vector) takes vectors of 48 dimensions alone",
    ),
    "trigger function that pins the length": Case(
        "CREATE FUNCTION check_it() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE v vector(48); "
        "BEGIN v := NEW.embedding; RETURN NEW; END $$; CREATE TRIGGER check_it BEFORE INSERT ON "
        "docs FOR EACH ROW EXECUTE FUNCTION check_it()",
        "the function check_it() takes vectors of 48 dimensions alone",
    ),
    "function that mentions it in a comment": Case(
        "CREATE FUNCTION other() RETURNS int LANGUAGE sql AS $$ /* as docs, vector(48) */ SELECT 1 "
        "-- docs, vector(48)\n $$",
        works="SELECT other()",
    ),
    "function that takes rows": Case(
        "CREATE FUNCTION title(d docs) RETURNS text LANGUAGE sql STABLE AS 'SELECT left(d.content, "
        "9)'",
        works="SELECT title(d), d.title FROM docs d ORDER BY id",
    ),
    "function that returns rows": Case(
        "CREATE FUNCTION newest() RETURNS SETOF docs LANGUAGE sql STABLE AS 'SELECT * FROM docs "
        "ORDER BY id DESC LIMIT 3'",
        works="SELECT id, content FROM newest()",
    ),
    "function that returns rows in an order": Case(
        "ALTER TABLE docs ADD late text; CREATE FUNCTION newest() RETURNS SETOF docs LANGUAGE sql "
        "STABLE AS 'SELECT id, content, meta, slug, price, updated_at, embedding, late FROM docs'",
        "the function newest() returns its rows, whose columns would change their order",
    ),
    "function with a body of its own": Case(
        "CREATE FUNCTION counted() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM "
        "docs; END",
        works="SELECT counted()",
    ),
    "function with a body that reads vectors": Case(
        "CREATE FUNCTION match(query vector) RETURNS SETOF bigint LANGUAGE sql BEGIN ATOMIC SELECT "
        "id FROM docs ORDER BY embedding <=> query LIMIT 1; END",
        "the function match(vector) reads the vector column",
    ),
    "function with a body that returns rows": Case(
        "CREATE FUNCTION newest() RETURNS SETOF docs LANGUAGE sql BEGIN ATOMIC SELECT * FROM docs; "
        "END",
        "the function newest() reads the vector column",
    ),
    "procedure": Case(
        "CREATE PROCEDURE prune() LANGUAGE sql BEGIN ATOMIC DELETE FROM docs WHERE id < 0; END",
    ),
    "aggregate of rows": Case(
        "CREATE FUNCTION add_row(n bigint, d docs) RETURNS bigint LANGUAGE sql AS 'SELECT n + d.id'"
        "; CREATE AGGREGATE total(docs) (SFUNC = add_row, STYPE = bigint, INITCOND = '0')",
        works="SELECT total(d) FROM docs d",
    ),
    "cast of rows": Case(
        "CREATE FUNCTION as_key(d docs) RETURNS bigint LANGUAGE sql AS 'SELECT d.id'; CREATE CAST "
        "(docs AS bigint) WITH FUNCTION as_key(docs)",
        works="SELECT d::bigint FROM docs d ORDER BY id",
    ),
    "operator of rows": Case(
        "CREATE FUNCTION same(a docs, b docs) RETURNS boolean LANGUAGE sql AS 'SELECT a.id = b.id';"
        " CREATE OPERATOR === (LEFTARG = docs, RIGHTARG = docs, FUNCTION = same)",
        works="SELECT count(*) FROM docs a JOIN docs b ON a === b",
    ),
    "function over a function of rows": Case(
        "CREATE FUNCTION newest() RETURNS SETOF docs LANGUAGE sql STABLE AS 'SELECT * FROM docs'; "
        "CREATE VIEW shown AS SELECT id, content FROM newest()",
        works="SELECT * FROM shown",
    ),
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
    # views and rules
    "view": Case(
        "CREATE VIEW seen AS SELECT id, price FROM docs", works="SELECT * FROM seen ORDER BY id"
    ),
    "view of vectors": Case(
        "CREATE VIEW seen AS SELECT id, embedding FROM docs",
        "the view seen reads the vector column",
    ),
    "view of whole rows": Case(
        "CREATE VIEW seen AS SELECT d FROM docs d", "is the type of a column of seen"
    ),
    "view by its oid": Case(
        "CREATE VIEW size AS SELECT 'docs'::regclass::text AS name",
        works="SELECT name, (SELECT count(*) FROM docs) FROM size",
    ),
    "materialized view": Case(
        "CREATE MATERIALIZED VIEW seen AS SELECT id, price FROM docs; CREATE UNIQUE INDEX ON seen "
        "(id)",
        works="SELECT * FROM seen",
    ),
    "materialized view of vectors": Case(
        "CREATE MATERIALIZED VIEW seen AS SELECT id, vector_norm(embedding) FROM docs",
        "the view seen reads the vector column",
    ),
    "rule of another table": Case(
        "CREATE TABLE inbox (content text); CREATE RULE pass AS ON INSERT TO inbox DO ALSO INSERT "
        "INTO docs (content) VALUES (NEW.content)",
    ),
    "rule of another table with vectors": Case(
        "CREATE TABLE inbox (v vector); CREATE RULE pass AS ON INSERT TO inbox DO ALSO INSERT INTO "
        "docs (embedding) VALUES (NEW.v)",
        "the rule pass of inbox reads the vector column",
    ),
    "rule that tells": Case(
        "CREATE TABLE told (id bigint); CREATE RULE tell AS ON DELETE TO docs DO ALSO INSERT INTO "
        "told VALUES (OLD.id)",
    ),
    "rule with vectors": Case(
        "CREATE TABLE told (v vector); CREATE RULE tell AS ON DELETE TO docs DO ALSO INSERT INTO "
        "told VALUES (OLD.embedding)",
        "the rule tell reads the vector column",
    ),
    "rule that rewrites updates": Case(
        "CREATE RULE never AS ON UPDATE TO docs WHERE OLD.id < 0 DO INSTEAD NOTHING",
        "the rule never rewrites updates",
    ),
    # rights
    "grants": Case("GRANT SELECT, UPDATE (price) ON docs TO {role} WITH GRANT OPTION"),
    "grant on vectors": Case(
        "GRANT SELECT (id, embedding) ON docs TO {role}", "the vector column has grants of its own"
    ),
    "policies": Case(
        "ALTER TABLE docs ENABLE ROW LEVEL SECURITY; CREATE POLICY few ON docs TO {role} USING (id "
        "<= 7) WITH CHECK (id <= 9)",
    ),
    "policy on vectors": Case(
        "CREATE POLICY few ON docs USING (vector_norm(embedding) > 0)",
        "the policy few reads the vector column",
    ),
    "policy of another table": Case(
        "CREATE TABLE notes (doc bigint); CREATE POLICY of_docs ON notes USING (EXISTS (SELECT FROM"
        " docs WHERE id = doc))",
    ),
    "policy of another table with vectors": Case(
        "CREATE TABLE notes (doc bigint); CREATE POLICY of_docs ON notes USING (EXISTS (SELECT FROM"
        " docs WHERE id = doc AND embedding IS NOT NULL))",
        "the policy of_docs on table notes reads the vector column",
    ),
    "security label": Case(
        "INSERT INTO pg_seclabel VALUES ('docs'::regclass, 'pg_class'::regclass, 0, 'dummy', "
        "'secret')",
    ),
    "security label of vectors": Case(
        "INSERT INTO pg_seclabel SELECT attrelid, 'pg_class'::regclass, attnum, 'dummy', 'secret' "
        "FROM pg_attribute WHERE attrelid = 'docs'::regclass AND attname = 'embedding'",
        "the vector column has a security label of dummy",
    ),
    # triggers
    "trigger": Case(
        NOTE + "CREATE TRIGGER told AFTER UPDATE ON docs FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM "
        "NEW.*) EXECUTE FUNCTION note()",
    ),
    "trigger with rows of a statement": Case(
        NOTE + "CREATE TRIGGER told AFTER UPDATE ON docs REFERENCING OLD TABLE AS was NEW TABLE AS "
        "is_now FOR EACH STATEMENT EXECUTE FUNCTION note()",
    ),
    "trigger of vectors": Case(
        NOTE + "CREATE TRIGGER told AFTER UPDATE OF embedding ON docs FOR EACH ROW EXECUTE FUNCTION"
        " note()",
        "the trigger told is told of the vector column",
    ),
    "trigger when vectors change": Case(
        NOTE + "CREATE TRIGGER told AFTER UPDATE ON docs FOR EACH ROW WHEN (OLD.embedding IS "
        "DISTINCT FROM NEW.embedding) EXECUTE FUNCTION note()",
        "the trigger told reads the vector column",
    ),
    "constraint trigger": Case(
        NOTE + "CREATE CONSTRAINT TRIGGER told AFTER INSERT ON docs DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION note()",
    ),
    "event trigger": Case(
        "CREATE FUNCTION seen() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RETURN; END $$; "
        "CREATE EVENT TRIGGER watching ON ddl_command_end EXECUTE FUNCTION seen()",
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
    "storage and statistics": Case(
        "ALTER TABLE docs ALTER embedding SET STORAGE PLAIN, ALTER embedding SET STATISTICS 7, "
        "ALTER embedding SET (n_distinct = -1), ALTER content SET STORAGE EXTERNAL, ALTER content "
        "SET STATISTICS 9, ALTER content SET COMPRESSION pglz",
        "settings of its own",
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
    "check of vectors": Case(
        "ALTER TABLE docs ADD CONSTRAINT long CHECK (vector_dims(embedding) = 48)",
        "its check long reads the vector column",
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
        "CREATE STATISTICS pair (ndistinct) ON slug, embedding FROM docs",
        "the statistics object pair reads the vector column",
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
    "two indexes of vectors": Case(
        "CREATE INDEX by_l2 ON docs USING hnsw (embedding vector_l2_ops)",
        "the vector column has several indexes",
    ),
    "unlogged": Case("ALTER TABLE docs SET UNLOGGED"),
    "owner": Case("GRANT CREATE ON SCHEMA public TO {role}; ALTER TABLE docs OWNER TO {role}"),
    "tablespace": Case("ALTER TABLE docs SET TABLESPACE {role}; ALTER INDEX docs_by_price SET "
                       "TABLESPACE {role}"),
}  # fmt: skip
