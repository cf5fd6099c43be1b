"""What may surround a table in Postgres: what hangs on its vector column. See `surroundings`."""

from __future__ import annotations

from tests.support.cases.surrounding import Case

VECTORS: dict[str, Case] = {
    # its indexes
    "two indexes of vectors": Case(
        "CREATE INDEX by_l2 ON docs USING hnsw (embedding vector_l2_ops) WITH (m = 8)"
    ),
    "index of some vectors": Case(
        "CREATE INDEX dear ON docs USING hnsw (embedding vector_cosine_ops) WHERE price > 2; CREATE"
        " INDEX cheap ON docs USING ivfflat (embedding) WITH (lists = 2) WHERE price <= 2"
    ),
    "index of halves": Case(
        "CREATE INDEX by_half ON docs USING hnsw ((embedding::halfvec(48)) halfvec_ip_ops)"
    ),
    "index of bits": Case(
        "CREATE INDEX by_bits ON docs USING hnsw ((binary_quantize(embedding)::bit(48)) "
        "bit_hamming_ops)"
    ),
    "index of bits alone": Case(
        "DROP INDEX docs_by_vector; CREATE INDEX by_bits ON docs USING hnsw "
        "((binary_quantize(embedding)::bit(48)) bit_jaccard_ops) WITH (ef_construction = 40)"
    ),
    "index of a part of vectors": Case(
        "CREATE INDEX by_start ON docs USING hnsw ((subvector(embedding, 1, 16)::vector(16)) "
        "vector_cosine_ops)"
    ),
    "index of vectors among others": Case(
        "CREATE INDEX by_norm ON docs (price, vector_norm(embedding)) INCLUDE (slug); ALTER INDEX "
        "by_norm ALTER 2 SET STATISTICS 44; COMMENT ON INDEX by_norm IS 'how long'; CREATE INDEX "
        "of_some ON docs (slug) WHERE embedding IS NOT NULL"
    ),
    "index of vectors with settings": Case(
        "ALTER INDEX docs_by_vector SET TABLESPACE {role}; COMMENT ON INDEX docs_by_vector "
        "IS 'made in May'"
    ),
    "clustered by vectors": Case(
        "CREATE INDEX by_norm ON docs (vector_norm(embedding)); ALTER TABLE docs CLUSTER ON by_norm"
    ),
    "unique vectors": Case(
        "CREATE UNIQUE INDEX once ON docs (md5(embedding::text)); CREATE UNIQUE INDEX known ON docs"
        " (slug) WHERE embedding IS NOT NULL; ALTER TABLE docs ADD CONSTRAINT pair UNIQUE (id, "
        "embedding) DEFERRABLE; COMMENT ON CONSTRAINT pair ON docs IS 'one each'"
    ),
    "unique vectors that count nulls": Case(
        "CREATE UNIQUE INDEX once ON docs (md5(coalesce(embedding::text, '')))",
        "the unique index once takes one row alone that has no vector",
    ),
    "exclusion of vectors": Case(
        "ALTER TABLE docs ADD CONSTRAINT once EXCLUDE USING btree (embedding WITH =)",
        "the constraint once is of the vector column",
    ),
    # its settings
    "storage and statistics": Case(
        "ALTER TABLE docs ALTER embedding SET STORAGE MAIN, ALTER embedding SET STATISTICS 7, "
        "ALTER embedding SET COMPRESSION pglz, ALTER embedding SET (n_distinct = -1), ALTER content"
        " SET STORAGE EXTERNAL, ALTER content SET STATISTICS 9, ALTER content SET COMPRESSION pglz"
    ),
    "comment on vectors": Case("COMMENT ON COLUMN docs.embedding IS 'by ada'"),
    "vectors are required": Case(
        "ALTER TABLE docs ADD CONSTRAINT there CHECK (price IS NOT NULL), ALTER embedding SET NOT "
        "NULL"
    ),
    # its checks
    "check of vectors": Case(
        "ALTER TABLE docs ADD CONSTRAINT long CHECK (vector_norm(embedding) > 0.5) NO INHERIT; "
        "COMMENT ON CONSTRAINT long ON docs IS 'not empty'"
    ),
    "check of the length of vectors": Case(
        "ALTER TABLE docs ADD CONSTRAINT long CHECK (vector_dims(embedding) = 48)",
        "its check long is not true of a vector of 64 dimensions: false",
    ),
    "check of vectors and others": Case(
        "ALTER TABLE docs ADD CONSTRAINT long CHECK (price > 0 OR embedding IS NOT NULL)",
        "its check long reads the vector column and others",
    ),
    # its grants
    "grant on vectors": Case("GRANT SELECT (id, embedding), UPDATE (embedding) ON docs TO {role}"),
    "grant on vectors to be handed on": Case(
        "GRANT SELECT (embedding) ON docs TO {role} WITH GRANT OPTION; SET ROLE {role}; GRANT "
        "SELECT (embedding) ON docs TO PUBLIC; RESET ROLE",
        "the vector column has a grant by",
    ),
}  # fmt: skip
