"""Indexes, constraints, statistics and settings of a table: as they were, under their names, after
every move; and the vector's own index by its settings, metric, type and dimensions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from psycopg import sql

from tests.support.pg_scene import Scene, read
from tests.support.servers.postgres_server import PostgresServer
from tests.support.texts import vector_of

ROWS = 40


def table(scene: Scene, *statements: str, type: str = "vector(48)") -> None:
    scene.execute(
        "CREATE TABLE docs (id serial PRIMARY KEY, content text, n int, metadata jsonb, "
        f"embedding {type})",
        *statements,
    )
    scene.fill(ROWS, columns={"n": lambda row: row, "metadata": lambda row: f'{{"n": {row}}}'})


def index_of(scene: Scene) -> str:
    """The definitions of the indexes of vectors."""
    return "; ".join(
        row[0].partition(" USING ")[2]
        for row in scene.shape()["indexes"]
        if "hnsw" in row[0] or "ivfflat" in row[0]
    )


def names(scene: Scene) -> set[str]:
    """Of the table's indexes."""
    return {row[0].partition("INDEX ")[2].split()[0] for row in scene.shape()["indexes"]}


def test_everything_that_belongs_to_a_table_is_carried(postgres_url: str, tmp_path: Path) -> None:
    scene = Scene(postgres_url, tmp_path)
    scene.execute(
        "CREATE TABLE docs (id bigint GENERATED ALWAYS AS IDENTITY (SEQUENCE NAME my_ids), "
        "content text NOT NULL, n int DEFAULT 7 CONSTRAINT positive CHECK (n >= 0), "
        "slug varchar(40) UNIQUE NULLS NOT DISTINCT DEFAULT gen_random_uuid(), room int, "
        "during int4range, metadata jsonb DEFAULT '{}', title text STORAGE EXTERNAL "
        'COLLATE "C", embedding vector(48) NOT NULL, '
        "CONSTRAINT the_key PRIMARY KEY (id) INCLUDE (n), CONSTRAINT no_overlap EXCLUDE USING "
        "gist (during WITH &&), CONSTRAINT late UNIQUE (n) DEFERRABLE INITIALLY "
        'DEFERRED, CONSTRAINT "Odd name" CHECK (length(content) > 0)) WITH (fillfactor = 70, '
        "autovacuum_vacuum_scale_factor = 0.05, toast.autovacuum_enabled = false)",
        "CREATE INDEX some_vectors ON docs USING hnsw (embedding vector_l2_ops) WHERE n < 20",
        "CREATE INDEX by_vector ON docs USING hnsw (embedding vector_cosine_ops) WITH (m = 8, "
        "ef_construction = 32)",
        "CREATE INDEX half_vectors ON docs USING hnsw ((embedding::halfvec(48)) "
        "halfvec_cosine_ops)",
        "CREATE INDEX bit_vectors ON docs USING hnsw ((binary_quantize(embedding)::bit(48)) "
        "bit_hamming_ops)",
        'CREATE INDEX "By Title" ON docs (title COLLATE "POSIX" text_pattern_ops DESC NULLS '
        "LAST) INCLUDE (n) WHERE title IS NOT NULL",
        "CREATE INDEX ON docs (lower(content), (n + 1))",
        "CREATE INDEX ON docs USING gin (metadata jsonb_path_ops) WITH (fastupdate = off)",
        "CREATE INDEX ON docs USING gin (to_tsvector('simple', content))",
        "CREATE INDEX ON docs USING brin (n) WITH (pages_per_range = 32)",
        "CREATE INDEX ON docs USING hash (content)",
        "CREATE UNIQUE INDEX once ON docs (slug) WHERE n > 3",
        "CREATE INDEX ON docs (n)",
        "CREATE INDEX ON docs (n)",
        "CREATE STATISTICS together (ndistinct, dependencies) ON n, room FROM docs",
        "CREATE STATISTICS ON lower(content), n FROM docs",
        "COMMENT ON TABLE docs IS 'of the company''s %s'",
        "COMMENT ON COLUMN docs.content IS 'what it says'",
        "COMMENT ON COLUMN docs.embedding IS 'by the model'",
        "COMMENT ON INDEX by_vector IS 'of vectors'",
        "COMMENT ON INDEX the_key IS 'of the key'",
        "COMMENT ON CONSTRAINT late ON docs IS 'is checked late'",
        "COMMENT ON CONSTRAINT positive ON docs IS 'is checked'",
        "COMMENT ON STATISTICS together IS 'go together'",
        "ALTER TABLE docs ALTER n SET STATISTICS 500, ALTER n SET (n_distinct = -0.5), "
        "REPLICA IDENTITY FULL",
    )
    scene.fill(
        ROWS,
        columns={
            "n": lambda row: row, "room": lambda row: row % 3, "title": lambda row: f"title {row}",
            "during": lambda row: f"[{row},{row + 1})",
        },
    )  # fmt: skip
    scene.there_and_back()
    assert scene.execute("SELECT relreplident::text FROM pg_class WHERE relname = 'docs'") == [
        ("f",)
    ]


@pytest.mark.parametrize(
    ("type", "target", "made", "expected"),
    [
        ("vector(48)", {}, [
            "hnsw ((embedding::halfvec(48)) halfvec_l2_ops) WITH (m = 8)",
            "hnsw ((binary_quantize(embedding)::bit(48)) bit_hamming_ops)",
            "ivfflat (embedding vector_ip_ops) WITH (lists = 3) WHERE n > 2",
         ], [
            "hnsw (((embedding)::halfvec(d)) halfvec_l2_ops) WITH (m='8')",
            "hnsw (((binary_quantize(embedding))::bit(d)) bit_hamming_ops)",
            "ivfflat (embedding vector_ip_ops) WITH (lists='3') WHERE (n > 2)",
         ]),
        ("vector", {}, ["hnsw ((embedding::vector(48)) vector_l2_ops)",
                        "hnsw ((embedding::halfvec(48)) halfvec_ip_ops)"],
         ["hnsw (embedding vector_l2_ops)", "hnsw (((embedding)::halfvec(d)) halfvec_ip_ops)"]),
        ("vector(48)", {"column_type": "halfvec", "type": "ivfflat", "lists": 2},
         ["ivfflat (embedding) WITH (lists=2)", "ivfflat (embedding) WITH (lists=3)",
          "hnsw ((embedding::halfvec(48)) halfvec_l2_ops)"],
         ["ivfflat (embedding halfvec_l2_ops) WITH (lists='2')",
          "ivfflat (embedding halfvec_l2_ops) WITH (lists='3')",
          "hnsw (embedding halfvec_l2_ops)"]),
        ("halfvec(48)", {"column_type": "vector"},
         ["ivfflat (embedding halfvec_l2_ops) WITH (lists=2)",
          "ivfflat (embedding halfvec_l2_ops) WITH (lists=3)"],
         ["ivfflat (embedding) WITH (lists='2')", "ivfflat (embedding) WITH (lists='3')"]),
    ],
)  # fmt: skip
def test_the_vectors_indexes_fit_the_new_dimensions(
    postgres_url: str, tmp_path: Path, type: str, target: dict[str, Any], made: list[str],
    expected: list[str],
) -> None:  # fmt: skip
    """Each is made once, though the shadow is looked at again for rows that came later."""
    scene = Scene(postgres_url, tmp_path, target__index=target)
    table(
        scene,
        *(f"CREATE INDEX i{place} ON docs USING {tail}" for place, tail in enumerate(made)),
        type=type,
    )
    scene.run()
    scene.fill(2, first=100)
    scene.swap()
    assert sorted(index_of(scene).split("; ")) == sorted(expected), index_of(scene)
    assert names(scene) == {*(f"i{place}" for place in range(len(made))), "docs_pkey"}


@pytest.mark.parametrize(
    ("made", "metric", "settings"),
    [
        ("hnsw (embedding vector_cosine_ops) WITH (m=8, ef_construction=32)", "cosine",
         {"type": "hnsw", "m": 8, "ef_construction": 32}),
        ("hnsw (embedding vector_l2_ops)", "l2", {"type": "hnsw"}),
        ("hnsw (embedding vector_ip_ops)", "ip", {"type": "hnsw"}),
        ("ivfflat (embedding vector_l2_ops) WITH (lists=4)", "l2", {"type": "ivfflat", "lists": 4}),
        ("ivfflat (embedding vector_cosine_ops)", "cosine", {"type": "ivfflat"}),
        (None, "cosine", {"type": "none"}),
    ],
)  # fmt: skip
def test_metric_and_settings_are_those_of_the_index(
    postgres_url: str, tmp_path: Path, made: str | None, metric: str, settings: dict[str, Any]
) -> None:
    scene = Scene(postgres_url, tmp_path)
    table(scene, *([f"CREATE INDEX ON docs USING {made}"] if made else []))
    plan = scene.migration.plan()
    assert (plan.source.metric, plan.metric, plan.source.index) == (metric, metric, settings)
    scene.there_and_back()
    assert (index_of(scene) != "") == (made is not None)


@pytest.mark.parametrize(
    ("index", "metric", "expected"),
    [
        ({"m": 24}, None, "hnsw (embedding vector_cosine_ops) WITH (m='24')"),
        ({"type": "ivfflat", "lists": 5}, "l2",
         "ivfflat (embedding) WITH (lists='5')"),
        ({"type": "none"}, None, ""),
        ({"column_type": "halfvec"}, None, "hnsw (embedding halfvec_cosine_ops) WITH (m='8')"),
        ({}, "ip", "hnsw (embedding vector_ip_ops) WITH (m='8')"),
    ],
)  # fmt: skip
def test_the_manifest_may_ask_for_another_index(
    postgres_url: str, tmp_path: Path, index: dict[str, Any], metric: str | None, expected: str
) -> None:
    scene = Scene(postgres_url, tmp_path, target__index=index, target__metric=metric)
    table(scene, "CREATE INDEX mine ON docs USING hnsw (embedding vector_cosine_ops) WITH (m = 8)")
    shape, vectors = scene.shape(), scene.vectors()
    scene.run()
    scene.swap()
    assert index_of(scene) == expected, index_of(scene)
    assert ("mine" in names(scene)) == bool(expected)
    scene.migration.rollback()
    assert (scene.shape(), scene.vectors()) == (shape, vectors)


def test_halfvec_stays_halfvec(postgres_url: str, tmp_path: Path) -> None:
    scene = Scene(postgres_url, tmp_path)
    table(scene, "CREATE INDEX ON docs USING hnsw (embedding halfvec_l2_ops)", type="halfvec(48)")
    scene.there_and_back()
    assert index_of(scene) == "hnsw (embedding halfvec_l2_ops)"
    assert scene.execute("SELECT pg_typeof(embedding)::text FROM docs LIMIT 1") == [("halfvec",)]


WIDE = """
import numpy as np
import counting_model

def embed(texts):
    vectors = counting_model._vectors(texts, 2, 64, "wide")
    return np.tile(vectors, (1, DIMENSIONS // 64))
"""


def wide(tmp_path: Path, dimensions: int) -> dict[str, Any]:
    """A model of so many dimensions, beside the manifest."""
    (tmp_path / f"wide_{dimensions}.py").write_text(WIDE.replace("DIMENSIONS", str(dimensions)))
    model = {"provider": "python", "name": f"wide_{dimensions}:embed", "dimensions": dimensions}
    return {"model": model}


@pytest.mark.parametrize(
    "made",
    ["(embedding vector_cosine_ops) WITH (m=8)", "((embedding::vector(48)) vector_cosine_ops)"],
)
def test_more_than_2000_dimensions_go_into_a_halfvec(
    postgres_url: str, tmp_path: Path, made: str
) -> None:
    scene = Scene(postgres_url, tmp_path, **wide(tmp_path, 2560))
    table(scene, f"CREATE INDEX mine ON docs USING hnsw {made}",
          type="vector(48)" if "m=8" in made else "vector")  # fmt: skip
    shape, vectors = scene.shape(), scene.vectors()
    told = " ".join(problem.message for problem in scene.migration.plan().warnings)
    assert "the new vectors are of type halfvec(2560)" in told
    scene.run()
    scene.swap()
    ((type,),) = scene.execute(
        "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = "
        "'docs'::regclass AND attname = 'embedding'"
    )
    assert type == "halfvec(2560)"
    assert index_of(scene).startswith("hnsw") and "halfvec_cosine_ops" in index_of(scene)
    texts = scene.texts()
    for id, vector in scene.vectors().items():
        expected = np.tile(vector_of("new", texts[id] or ""), 40)
        assert np.allclose(read(vector or ""), expected, rtol=1e-3, atol=1e-3)
    # an application's query, which casts to vector, finds the row itself
    ((best,),) = scene.execute(
        "SELECT id FROM docs ORDER BY embedding <=> (SELECT embedding::vector FROM docs WHERE id = "
        "7) LIMIT 1"
    )
    assert best == 7
    scene.migration.rollback()
    assert (scene.shape(), scene.vectors()) == (shape, vectors)


def test_more_dimensions_than_any_index_takes_is_told_by_the_plan(
    postgres_url: str, tmp_path: Path
) -> None:
    scene = Scene(postgres_url, tmp_path, **wide(tmp_path, 4096))
    table(scene, "CREATE INDEX ON docs USING hnsw (embedding vector_cosine_ops)")
    (blocker,) = scene.migration.plan().blockers
    assert "cannot index vectors of 4,096 dimensions" in blocker.message
    unindexed = Scene(
        postgres_url, tmp_path, target__index={"type": "none"}, **wide(tmp_path, 4096)
    )
    assert unindexed.migration.plan().ok
    unindexed.run()
    unindexed.swap()
    assert index_of(scene) == ""


def test_the_index_is_made_after_the_load_with_memory_for_it(
    postgres_url: str, tmp_path: Path
) -> None:
    """An event trigger of the test's own notes what is set while an index is made."""
    scene = Scene(postgres_url, tmp_path)
    table(scene, "CREATE INDEX ON docs USING hnsw (embedding vector_cosine_ops)")
    scene.execute(
        "CREATE TABLE noted (tag text, memory text, parallel text, there bigint)",
        "CREATE FUNCTION note() RETURNS event_trigger LANGUAGE plpgsql AS $$ DECLARE n bigint; "
        "found text; BEGIN SELECT relname INTO found FROM pg_class WHERE relname ~ '^docs__' AND "
        "relkind = 'r'; EXECUTE format('SELECT count(*) FROM %I', found) INTO n; INSERT INTO noted "
        "VALUES (tg_tag, current_setting('maintenance_work_mem'), "
        "current_setting('min_parallel_table_scan_size'), n); END $$",
        "CREATE EVENT TRIGGER noting ON ddl_command_end WHEN tag IN ('CREATE INDEX') EXECUTE "
        "FUNCTION note()",
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET maintenance_work_mem = ''1MB''', "
        "current_database()); END $$",
    )
    scene.migration.run()
    # 16 MB, and for each row its values, its links and what holds them.
    needed = 2**14 + ROWS * (4 * 64 + 16 * 48 + 512) // 2**10
    assert scene.execute("TABLE noted") == [("CREATE INDEX", f"{needed}kB", "128kB", ROWS)]


def test_an_owner_is_carried_by_a_superuser_and_by_the_owner(
    postgres_url: str, postgres: PostgresServer, tmp_path: Path
) -> None:
    scene = Scene(postgres_url, tmp_path)
    table(scene, "CREATE INDEX ON docs USING hnsw (embedding vector_cosine_ops)")
    ((database,),) = scene.execute("SELECT current_database()")
    role = f"Owner of {database}"
    identifier = sql.Identifier(role)
    scene.execute(
        sql.SQL("CREATE ROLE {} LOGIN").format(identifier),
        sql.SQL("GRANT CREATE ON SCHEMA public TO {}").format(identifier),
        sql.SQL("ALTER TABLE docs OWNER TO {}").format(identifier),
    )
    try:
        scene.there_and_back()
        (tmp_path / "own").mkdir()
        own = Scene(
            postgres.url(database, role), tmp_path / "own",
            model={"provider": "python", "name": "counting_model:old", "dimensions": 48},
            source__model={"provider": "python", "name": "counting_model:new"},
        )  # fmt: skip
        shape, contents = own.shape(), own.contents()
        own.migration.run()
        own.swap()
        assert (own.shape(), own.contents()) == (shape, contents)
        own.migration.rollback()
        own.migration.clean()
        assert own.shape() == shape
    finally:
        scene.execute(
            sql.SQL("DROP OWNED BY {}").format(identifier),
            sql.SQL("DROP ROLE {}").format(identifier),
        )
