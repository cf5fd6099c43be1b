"""What may surround a table in Postgres: what reads it, and who may. See `surroundings`."""

from __future__ import annotations

from tests.support.cases.surrounding import Case

NOTE = "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$; "
NEAREST = "(SELECT embedding FROM docs WHERE id = 7)"

CODE: dict[str, Case] = {
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
        works="SELECT * FROM shown ORDER BY id",
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
        " note(); CREATE TRIGGER always BEFORE INSERT OR UPDATE OF slug, embedding ON docs FOR EACH"
        " STATEMENT EXECUTE FUNCTION note('a', 'b'); ALTER TABLE docs ENABLE ALWAYS TRIGGER always;"
        " CREATE TRIGGER off AFTER UPDATE OF embedding ON docs FOR EACH ROW WHEN (NEW.slug <> '%') "
        "EXECUTE FUNCTION note(); ALTER TABLE docs DISABLE TRIGGER off; COMMENT ON TRIGGER off ON "
        "docs IS 'not \"now\"'",
    ),
    "trigger of vectors that change": Case(
        NOTE + "CREATE TRIGGER told AFTER UPDATE OF embedding ON docs FOR EACH ROW WHEN "
        "(OLD.embedding IS DISTINCT FROM NEW.embedding) EXECUTE FUNCTION note()",
        "the trigger told is told of the vector column, and its condition reads it",
    ),
    "constraint trigger of vectors": Case(
        NOTE + "CREATE CONSTRAINT TRIGGER told AFTER UPDATE OF embedding ON docs DEFERRABLE FOR "
        "EACH ROW EXECUTE FUNCTION note()",
        "the trigger told is told of the vector column, and is a constraint",
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
}  # fmt: skip
