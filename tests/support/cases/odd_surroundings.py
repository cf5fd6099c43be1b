"""More of what may surround a table in Postgres: rarer than in `surroundings.py`, and each seen to
be forgotten easily. Used in the same way."""

from __future__ import annotations

from tests.support.cases.surrounding import Case
from tests.support.cases.surrounding_code import NOTE

ODD_SURROUNDINGS: dict[str, Case] = {
    # sequences
    "sequence owned by a column without a default": Case(
        "CREATE SEQUENCE counter OWNED BY docs.price", works="SELECT count(*) FROM counter"
    ),
    "sequence owned by the vector column": Case(
        "CREATE SEQUENCE counter OWNED BY docs.embedding",
        "the sequence counter belongs to the vector column",
        works="SELECT count(*) FROM counter",
    ),
    "default of a sequence of its own": Case(
        "CREATE SEQUENCE counter; ALTER TABLE docs ALTER price SET DEFAULT nextval('counter'); "
        "ALTER SEQUENCE counter OWNED BY NONE",
    ),
    "identity with settings": Case(
        "ALTER TABLE docs ALTER id SET GENERATED ALWAYS, ALTER id SET INCREMENT BY 3, ALTER id SET "
        "MAXVALUE 100000, ALTER id SET CYCLE; COMMENT ON SEQUENCE docs_id_seq IS 'counts'"
    ),
    # defaults, columns
    "default by a function": Case(
        "CREATE FUNCTION stamp() RETURNS timestamptz LANGUAGE sql AS 'SELECT now()'; ALTER TABLE "
        "docs ALTER updated_at SET DEFAULT stamp()",
    ),
    "default that names the table": Case(
        "ALTER TABLE docs ADD made_in regclass DEFAULT 'docs'::regclass",
        works="SELECT count(DISTINCT made_in) FROM docs",
    ),
    "check that names the table": Case(
        "ALTER TABLE docs ADD CONSTRAINT of_it CHECK ('docs'::regclass IS NOT NULL)",
    ),
    "columns that are gone": Case("ALTER TABLE docs ADD gone int; ALTER TABLE docs DROP gone"),
    "columns of every sort": Case(
        "CREATE TYPE spot AS (x int, y int); CREATE TYPE span AS RANGE (SUBTYPE = float8); CREATE "
        "DOMAIN word AS varchar(20) DEFAULT 'none' CHECK (VALUE <> ''); CREATE COLLATION plain "
        "(provider = libc, locale = 'C'); ALTER TABLE docs ADD spot spot DEFAULT (1, 2), ADD spans "
        "span[], ADD word word, ADD \"odd \"\"name\" text COLLATE plain DEFAULT 'x'",
        works='SELECT spot, word, "odd ""name" FROM docs ORDER BY id',
    ),
    "named not-null": Case("ALTER TABLE docs ADD CONSTRAINT has_text NOT NULL content NO INHERIT"),
    "check that is not enforced": Case(
        "ALTER TABLE docs ADD CONSTRAINT wish CHECK (price > 100) NOT ENFORCED",
        "its check wish",
    ),
    "deferrable key": Case(
        "ALTER TABLE docs DROP CONSTRAINT docs_pkey, ADD PRIMARY KEY (id) DEFERRABLE INITIALLY "
        "DEFERRED",
        "nor another unique one without nulls, that is not deferrable",
    ),
    "key with more columns": Case(
        "ALTER TABLE docs DROP CONSTRAINT docs_pkey, ADD CONSTRAINT the_key PRIMARY KEY (id) "
        "INCLUDE (slug) WITH (fillfactor = 80)"
    ),
    "exclusion of ranges": Case(
        "ALTER TABLE docs ADD during int4range; UPDATE docs SET during = int4range(id::int, "
        "id::int + 1); ALTER TABLE docs ADD EXCLUDE USING gist (during WITH &&) WHERE (id > 3)"
    ),
    "texts indexed for search": Case(
        "ALTER TABLE docs ADD words tsvector GENERATED ALWAYS AS (to_tsvector('english', content)) "
        "STORED; CREATE INDEX by_words ON docs USING gin (words) WITH (fastupdate = off)"
    ),
    "indexes of every sort": Case(
        "CREATE INDEX by_pattern ON docs (content text_pattern_ops DESC NULLS LAST) INCLUDE (id); "
        "CREATE INDEX by_c ON docs (content COLLATE \"C\"); CREATE INDEX by_hash ON docs USING hash"
        " (slug); CREATE INDEX by_brin ON docs USING brin (updated_at) WITH (autosummarize = on); "
        "CREATE UNIQUE INDEX by_one ON docs (lower(slug), id) NULLS NOT DISTINCT WHERE id > 2; "
        "CREATE INDEX by_path ON docs USING gin (meta jsonb_path_ops)"
    ),
    "table's own storage": Case(
        "CREATE ACCESS METHOD heap2 TYPE TABLE HANDLER heap_tableam_handler; ALTER TABLE docs SET "
        "ACCESS METHOD heap2"
    ),
    "settings of the table": Case(
        "ALTER TABLE docs SET (toast_tuple_target = 256, parallel_workers = 0, autovacuum_enabled ="
        " off, vacuum_truncate = off)"
    ),
    # keys
    "foreign keys with settings": Case(
        "CREATE TABLE people (id int, k int, UNIQUE (id, k)); ALTER TABLE docs ADD owner int, ADD k"
        " int, ADD CONSTRAINT owned FOREIGN KEY (owner, k) REFERENCES people (id, k) MATCH FULL ON "
        "UPDATE CASCADE ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED; COMMENT ON CONSTRAINT "
        "owned ON docs IS 'whose'"
    ),
    "foreign key that is not enforced": Case(
        "CREATE TABLE people (id int PRIMARY KEY); ALTER TABLE docs ADD owner int, ADD CONSTRAINT "
        "owned FOREIGN KEY (owner) REFERENCES people NOT ENFORCED"
    ),
    "foreign key of a partitioned table": Case(
        "CREATE TABLE notes (doc bigint REFERENCES docs ON DELETE SET NULL) PARTITION BY HASH (doc)"
        "; CREATE TABLE notes_0 PARTITION OF notes FOR VALUES WITH (MODULUS 1, REMAINDER 0); INSERT"
        " INTO notes VALUES (3)",
        works="SELECT content FROM notes JOIN docs ON id = doc",
    ),
    # triggers, rules
    "triggers with settings": Case(
        NOTE + "CREATE TRIGGER one AFTER INSERT ON docs FOR EACH ROW EXECUTE FUNCTION note('a', 2);"
        " CREATE TRIGGER two BEFORE UPDATE OF content ON docs FOR EACH ROW EXECUTE FUNCTION note();"
        " CREATE TRIGGER three AFTER TRUNCATE ON docs EXECUTE FUNCTION note(); ALTER TABLE docs "
        "DISABLE TRIGGER one, ENABLE ALWAYS TRIGGER two, ENABLE REPLICA TRIGGER three; COMMENT ON "
        "TRIGGER two ON docs IS 'second'"
    ),
    "trigger that changes rows": Case(
        "CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.updated_at := "
        "clock_timestamp(); RETURN NEW; END $$; CREATE TRIGGER stamp BEFORE INSERT OR UPDATE ON "
        "docs FOR EACH ROW EXECUTE FUNCTION stamp()",
        works="SELECT id, updated_at FROM docs ORDER BY id",
    ),
    "trigger that refuses updates": Case(
        "CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'never'; END $$"
        "; CREATE TRIGGER never BEFORE UPDATE ON docs FOR EACH ROW EXECUTE FUNCTION never()"
    ),
    "rule that is off": Case(
        "CREATE TABLE told (id bigint); CREATE RULE tell AS ON INSERT TO docs DO ALSO INSERT INTO "
        "told VALUES (NEW.id); ALTER TABLE docs DISABLE RULE tell; COMMENT ON RULE tell ON docs IS "
        "'off'"
    ),
    # views
    "views with settings": Case(
        "CREATE VIEW seen WITH (security_barrier, security_invoker) AS SELECT id, slug, price FROM "
        "docs WHERE id < 20 WITH LOCAL CHECK OPTION; CREATE VIEW over AS SELECT id FROM seen; "
        "COMMENT ON COLUMN seen.slug IS 'short'; GRANT SELECT ON over TO {role}; ALTER VIEW seen "
        "ALTER price SET DEFAULT 3",
        works="SELECT * FROM over ORDER BY id",
    ),
    "view with a trigger": Case(
        NOTE + "CREATE VIEW seen AS SELECT id FROM docs; CREATE TRIGGER told INSTEAD OF DELETE ON "
        "seen FOR EACH ROW EXECUTE FUNCTION note()"
    ),
    # rights
    "grants to all, and from the owner": Case(
        "GRANT SELECT, INSERT (slug) ON docs TO PUBLIC; REVOKE TRUNCATE, TRIGGER ON docs FROM "
        "postgres; GRANT USAGE ON SEQUENCE docs_id_seq TO PUBLIC"
    ),
    "policies of every sort": Case(
        "ALTER TABLE docs ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; CREATE POLICY one ON"
        " docs AS RESTRICTIVE FOR UPDATE USING (id > 1) WITH CHECK (id > 2); CREATE POLICY two ON "
        "docs FOR INSERT TO {role} WITH CHECK (slug = current_user); CREATE POLICY three ON docs "
        "USING (id NOT IN (SELECT 3 FROM docs d LIMIT 0)); COMMENT ON POLICY one ON docs IS 'one'"
    ),
    "default privileges": Case(
        "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {role}; ALTER DEFAULT PRIVILEGES IN "
        "SCHEMA public GRANT ALL ON SEQUENCES TO {role}"
    ),
    # replication
    "publication of a schema": Case(
        "CREATE PUBLICATION news FOR TABLES IN SCHEMA public", "FOR TABLES IN SCHEMA"
    ),
    "publication of some columns": Case(
        "CREATE PUBLICATION news FOR TABLE docs (id, content) WHERE (id > 3) WITH (publish = "
        "'insert, update', publish_via_partition_root)"
    ),
    "replica identity of all": Case("ALTER TABLE docs REPLICA IDENTITY FULL"),
    "no replica identity": Case("ALTER TABLE docs REPLICA IDENTITY NOTHING"),
    # elsewhere
    "statistics of expressions": Case(
        "CREATE STATISTICS odd (mcv, dependencies) ON slug, (price * 2), (length(content)) FROM "
        "docs; COMMENT ON STATISTICS odd IS 'odd'"
    ),
    "function whose default is of its rows": Case(
        "CREATE FUNCTION first(d docs DEFAULT NULL) RETURNS bigint LANGUAGE sql AS 'SELECT d.id'",
        works="SELECT first(d) FROM docs d ORDER BY id",
    ),
    "function whose default is the table": Case(
        "CREATE FUNCTION sized(t regclass DEFAULT 'docs'::regclass) RETURNS text LANGUAGE sql AS "
        "'SELECT t::text'",
        works="SELECT sized()",
    ),
    "function with settings": Case(
        "CREATE FUNCTION counted() RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = "
        "pg_catalog AS 'SELECT count(*) FROM public.docs'; REVOKE ALL ON FUNCTION counted() FROM "
        "PUBLIC; GRANT EXECUTE ON FUNCTION counted() TO {role}",
        works="SELECT counted()",
    ),
    "index that depends on an extension": Case(
        "CREATE INDEX by_content ON docs (content); ALTER INDEX by_content DEPENDS ON EXTENSION "
        "vector",
        works="SELECT count(*) FROM pg_depend WHERE deptype = 'x' AND objid = "
        "'by_content'::regclass",
    ),
    "index of vectors that depends on an extension": Case(
        "ALTER INDEX docs_by_vector DEPENDS ON EXTENSION vector",
        "the index docs_by_vector of the vector column is one that depends on an extension",
    ),
    "column computed when it is read": Case(
        "ALTER TABLE docs ADD COLUMN loud text GENERATED ALWAYS AS (upper(content)) VIRTUAL",
        works="SELECT loud FROM docs ORDER BY id",
    ),
    "default tablespace of the database": Case(
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_tablespace = {role}', "
        "current_database()); END $$"
    ),
    "event trigger of tables": Case(
        "CREATE FUNCTION seen() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RETURN; END $$; "
        "CREATE EVENT TRIGGER one ON table_rewrite EXECUTE FUNCTION seen(); CREATE EVENT TRIGGER "
        "two ON sql_drop WHEN TAG IN ('DROP TABLE') EXECUTE FUNCTION seen(); ALTER EVENT TRIGGER "
        "two ENABLE ALWAYS"
    ),
    "comments on everything": Case(
        "COMMENT ON TABLE docs IS 'docs'; COMMENT ON COLUMN docs.slug IS 'slug'; COMMENT ON INDEX "
        "docs_by_meta IS 'meta'; COMMENT ON CONSTRAINT docs_pkey ON docs IS 'key'; COMMENT ON "
        "CONSTRAINT docs_slug_key ON docs IS 'slugs'; COMMENT ON TYPE docs IS 'a row'"
    ),
    # vectors of other kinds beside the one that moves
    "array of vectors": Case(
        "ALTER TABLE docs ADD parts vector(48)[]; UPDATE docs SET parts = ARRAY[embedding, NULL]",
        works="SELECT id, parts FROM docs ORDER BY id",
    ),
    "sparse vectors beside": Case(
        "ALTER TABLE docs ADD sparse sparsevec(48); UPDATE docs SET sparse = embedding::sparsevec; "
        "CREATE INDEX ON docs USING hnsw (sparse sparsevec_l2_ops)",
        works="SELECT id, sparse FROM docs ORDER BY id",
    ),
    "bits beside": Case(
        "ALTER TABLE docs ADD bits bit(48); UPDATE docs SET bits = binary_quantize(embedding); "
        "CREATE INDEX ON docs USING hnsw (bits bit_hamming_ops)",
        works="SELECT id, bits FROM docs ORDER BY id",
    ),
    "domain of vectors beside": Case(
        "CREATE DOMAIN kept AS vector(48); ALTER TABLE docs ADD kept kept; UPDATE docs SET kept = "
        "embedding",
        works="SELECT id, kept FROM docs ORDER BY id",
    ),
    # writes
    "trigger that notifies": Case(
        "CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_notify("
        "'docs', NEW.id::text); RETURN NEW; END $$; CREATE TRIGGER tell AFTER INSERT OR UPDATE ON "
        "docs FOR EACH ROW EXECUTE FUNCTION tell()",
    ),
    "function that writes over a row": Case(
        "CREATE FUNCTION over(t text) RETURNS void LANGUAGE sql AS $$ INSERT INTO docs (slug, "
        "content) VALUES (t, t) ON CONFLICT ON CONSTRAINT docs_slug_key DO UPDATE SET content = "
        "excluded.content $$",
    ),
    "function with a body that writes over a row": Case(
        "CREATE FUNCTION over(t text) RETURNS void LANGUAGE sql BEGIN ATOMIC INSERT INTO docs "
        "(slug, content) VALUES (t, t) ON CONFLICT ON CONSTRAINT docs_slug_key DO UPDATE SET "
        "content = excluded.content; END",
        "the function over(text) reads the vector column",
    ),
    "view that checks what is written": Case(
        "CREATE VIEW written AS SELECT id, content FROM docs WHERE id > 0 WITH CHECK OPTION",
        works="SELECT * FROM written ORDER BY id",
    ),
}  # fmt: skip
