"""Which rows of a table are records, and where their text is: vectors of several models, none at
all, texts in another table, keys of several columns. Every hint is followed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from reembed.errors import ManifestError, RefusedError
from reembed.manifest import Manifest
from reembed.stages.plan import Plan
from tests.support.commands import Command
from tests.support.following import follows_hint
from tests.support.manifests import migration, write_manifest
from tests.support.pg_scene import Scene, written
from tests.support.texts import sentence, vector_of

ROWS = 24


def blockers(plan: Plan) -> str:
    return "; ".join(problem.message for problem in plan.blockers)


def notes(plan: Plan) -> str:
    return "; ".join(problem.message for problem in plan.warnings)


def refusal(scene: Scene) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        scene.migration.plan()
    return caught.value


def follow(scene: Scene, hint: str, **changes: Any) -> Scene:
    """The scene with what a hint says of `source.where` and `swap.kind`."""
    found = re.search(r"(source\.where: \".*\") and swap\.kind: config", hint)
    assert found, hint
    where = yaml.safe_load(found[1])["source.where"]
    return Scene(
        scene.url, scene.folder, source__where=where, swap__kind="config",
        target__collection="moved", **changes,
    )  # fmt: skip


# Vectors of several models


def mixed(scene: Scene, first: int) -> None:
    """ROWS sentences: the first so many with vectors of 48 dimensions, the others of 64."""
    scene.execute("CREATE TABLE docs (id serial PRIMARY KEY, content text, embedding vector)")
    scene.fill(first)
    for number in range(first, ROWS):
        text = sentence(number)
        scene.execute(
            "INSERT INTO docs (content, embedding) VALUES (%s, %s)",
            parameters=[text, written(vector_of("new", text))],
        )


@pytest.mark.parametrize("spread", ["among the first rows", "after the first rows"])
def test_vectors_of_several_models_are_refused_by_their_counts_and_one_of_them_moves(
    postgres_url: str, tmp_path: Path, spread: str
) -> None:
    scene = Scene(postgres_url, tmp_path)
    mixed(scene, 20)
    if spread == "after the first rows":  # a look at some rows does not tell
        scene.execute(
            "INSERT INTO docs (content, embedding) SELECT c.content, c.embedding FROM docs c, "
            "generate_series(1, 15) WHERE c.id <= 20",
            "CREATE TABLE sorted (LIKE docs INCLUDING ALL)",
            "INSERT INTO sorted SELECT * FROM docs ORDER BY vector_dims(embedding)",
            "DROP TABLE docs CASCADE", "ALTER TABLE sorted RENAME TO docs",
        )  # fmt: skip
        problem = scene.migration.plan().blockers[0]
        message, hint = problem.message, problem.hint
        assert "48 (320 rows), 64 (4 rows)" in message
    else:
        error = refusal(scene)
        message, hint = error.message, error.hint
        assert "48 (20 rows), 64 (4 rows)" in message
    one = follow(scene, hint)
    plan = one.migration.plan()
    assert (plan.ok, plan.source.dimensions) == (True, 48), blockers(plan)
    result = one.migration.run(swap=True)
    assert result.verdict is not None and result.verdict.passed, result.verdict
    assert scene.execute("SELECT count(*) FROM moved") == [(plan.records,)]


def test_what_is_mixed_within_a_condition_is_refused_with_a_narrower_one(
    postgres_url: str, tmp_path: Path
) -> None:
    scene = Scene(
        postgres_url, tmp_path, source__where="id > 5 OR content = '\"' -- not the first",
        swap__kind="config", target__collection="moved",
    )  # fmt: skip
    mixed(scene, 14)
    error = refusal(scene)
    assert "64 (10 rows), 48 (9 rows)" in error.message
    plan = follow(scene, error.hint).migration.plan()
    assert (plan.ok, plan.records, plan.source.dimensions) == (True, 10, 64), blockers(plan)


# Rows without a vector


def without(scene: Scene) -> list[int]:
    """A table in which every fifth row has no vector; the ids of these."""
    scene.execute(
        "CREATE TABLE docs (id serial PRIMARY KEY, content text, embedding vector(48))",
        "CREATE INDEX ON docs USING hnsw (embedding vector_cosine_ops)",
    )
    scene.fill(ROWS)
    scene.execute("UPDATE docs SET embedding = NULL WHERE id % 5 = 0")
    return [id for id in range(1, ROWS + 1) if id % 5 == 0]


def empty(scene: Scene) -> list[int]:
    return sorted(int(id) for id, vector in scene.vectors().items() if vector is None)


def check_vectors(scene: Scene, model: str) -> None:
    texts = scene.texts()
    for id, vector in scene.vectors().items():
        if vector is not None:
            assert len(vector.split(",")) == len(vector_of(model, texts[id] or "")), id


def test_rows_without_a_vector_keep_none_there_and_back(postgres_url: str, tmp_path: Path) -> None:
    scene = Scene(postgres_url, tmp_path, source__without_vector="keep")
    bare = without(scene)
    contents, vectors, shape = scene.contents(), scene.vectors(), scene.shape()
    plan = scene.migration.plan()
    assert (plan.ok, plan.records) == (True, ROWS - len(bare)), blockers(plan)
    assert f"{len(bare)} rows of public.docs have no vector and go on without one" in notes(plan)
    assert "keeps its place at the swap" in notes(plan)
    scene.run()
    scene.swap()
    assert (scene.contents(), empty(scene)) == (contents, bare)
    check_vectors(scene, "new")
    scene.migration.rollback()
    assert (scene.contents(), scene.vectors(), scene.shape()) == (contents, vectors, shape)
    scene.swap()
    assert scene.migration.clean().done
    assert (scene.contents(), empty(scene)) == (contents, bare)


def test_what_happens_to_rows_without_a_vector_meanwhile_is_kept(
    postgres_url: str, tmp_path: Path
) -> None:
    """One gets a vector, one loses it, one is made and one deleted, before the swap and after."""
    scene = Scene(postgres_url, tmp_path, source__without_vector="keep")
    without(scene)
    scene.run()

    def change(shift: int, model: str) -> None:
        text = sentence(5 + shift)
        scene.execute(
            "UPDATE docs SET content = %s, embedding = %s WHERE id = %s",
            parameters=[text, written(vector_of(model, text)), 5 + shift],
        )
        scene.execute(
            f"UPDATE docs SET embedding = NULL WHERE id = {1 + shift}",
            f"DELETE FROM docs WHERE id = {10 + shift}",
            f"INSERT INTO docs (id, content) VALUES ({100 + shift}, 'later')",
        )

    change(0, "old")
    scene.swap()
    assert empty(scene) == [1, 15, 20, 100]
    check_vectors(scene, "new")
    change(10, "new")
    scene.migration.rollback()
    assert empty(scene) == [1, 11, 100, 110]
    assert {"10", "20"}.isdisjoint(scene.vectors()), "the application has deleted them"
    check_vectors(scene, "old")


def test_rows_without_a_vector_get_one_or_stop_the_plan(postgres_url: str, tmp_path: Path) -> None:
    scene = Scene(postgres_url, tmp_path)
    without(scene)
    assert "4 rows of public.docs have no vector and get one of their text" in notes(
        scene.migration.plan()
    )
    refusing = Scene(postgres_url, tmp_path, source__without_vector="refuse")
    (problem,) = refusing.migration.plan().blockers
    assert problem.message.startswith("4 rows of public.docs have no vector")
    for way in ("embed", "keep"):
        assert f"{way} " in problem.hint
        assert Scene(postgres_url, tmp_path, source__without_vector=way).migration.plan().ok
    scene.execute("DELETE FROM docs WHERE embedding IS NULL")
    assert Scene(postgres_url, tmp_path, source__without_vector="refuse").migration.plan().ok


def test_nothing_is_kept_in_a_collection_that_would_lack_it(
    postgres_url: str, tmp_path: Path
) -> None:
    scene = Scene(postgres_url, tmp_path, source__without_vector="keep", swap__kind="config")
    without(scene)
    (problem,) = scene.migration.plan().blockers
    assert "the new collection would not have them" in problem.message
    assert "swap.kind: auto" in problem.hint and "source.without_vector: embed" in problem.hint
    assert Scene(postgres_url, tmp_path, source__without_vector="keep").migration.plan().ok
    assert Scene(postgres_url, tmp_path, swap__kind="config").migration.plan().ok


# Texts that are elsewhere

QUERY = "SELECT chunk_id, string_agg(body, ' ' ORDER BY part) FROM chunks GROUP BY chunk_id -- all"


def elsewhere(scene: Scene) -> None:
    """Vectors in `docs`, texts in `chunks`, in two parts each."""
    scene.execute(
        "CREATE TABLE docs (id serial PRIMARY KEY, content text, note text, embedding vector(48))"
    )
    scene.fill(ROWS, columns={"note": lambda number: f"note {number}"})
    scene.execute(
        "CREATE TABLE chunks (chunk_id int, part int, body text)",
        "INSERT INTO chunks SELECT id, part, split_part(content, ' ', part) || CASE part WHEN 2 "
        "THEN substr(content, length(split_part(content, ' ', 1) || split_part(content, ' ', 2)) "
        "+ 2) ELSE '' END FROM docs, generate_series(1, 2) part",
        "ALTER TABLE docs DROP content",
    )


def check_texts(scene: Scene, model: str) -> None:
    texts: dict[str, str] = dict(
        scene.execute(f"SELECT key::text, text FROM ({QUERY}\n) q(key, text)")
    )
    for id, vector in scene.vectors().items():
        assert vector is not None
        expected = vector_of(model, texts[id])
        found = [float(one) for one in vector.strip("[]").split(",")]
        assert found == pytest.approx(expected.tolist(), rel=1e-3, abs=1e-3), id


def test_texts_of_another_table_there_and_back(postgres_url: str, tmp_path: Path) -> None:
    scene = Scene(postgres_url, tmp_path, source__text_query=QUERY)
    elsewhere(scene)
    contents, vectors = scene.contents(), scene.vectors()
    plan = scene.migration.plan()
    assert plan.ok, blockers(plan)
    assert "text from source.text_query" in notes(plan)
    scene.run()
    scene.execute("UPDATE chunks SET body = 'another' WHERE chunk_id = 7 AND part = 1")
    scene.swap()
    check_texts(scene, "new")
    assert scene.contents() == contents
    scene.migration.rollback()
    assert (scene.contents(), {id: v for id, v in scene.vectors().items() if id != "7"}) == (
        contents, {id: v for id, v in vectors.items() if id != "7"},
    )  # fmt: skip
    assert scene.migration.swap().done
    assert scene.migration.clean().done
    assert scene.execute("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal") == [(0,)]


def test_a_query_of_texts_that_does_not_do_is_refused(postgres_url: str, tmp_path: Path) -> None:
    scene = Scene(postgres_url, tmp_path, source__text_query="SELECT chunk_id, body FROM chunks")
    elsewhere(scene)
    error = refusal(scene)
    assert "gives 2 texts for the key" in error.message
    assert "string_agg(text, ' ' ORDER BY part) FROM ... GROUP BY key" in error.hint
    assert Scene(postgres_url, tmp_path, source__text_query=QUERY).migration.plan().ok
    for query in ("SELECT chunk_id FROM chunks", "SELECT 1, body FROM nowhere", "SELECT"):
        other = Scene(postgres_url, tmp_path, source__text_query=query)
        assert "source.text_query: " in refusal(other).message


def test_a_table_without_any_text_is_refused_with_ways_out(
    postgres_url: str, tmp_path: Path, command: Command
) -> None:
    scene = Scene(postgres_url, tmp_path)
    elsewhere(scene)
    scene.execute("ALTER TABLE docs DROP note")
    scene.execute("ALTER TABLE docs ADD meta jsonb", 'UPDATE docs SET meta = \'{"says": "so"}\'')
    (problem,) = scene.migration.plan().blockers
    assert f"none of the {ROWS} records of 'docs' gives a text" in problem.message
    told = command("plan", scene.path)
    assert told.code == 5 and "nothing blocks it" not in told.out
    assert "{metadata.KEY}" in problem.hint and "source.text_query" in problem.hint
    templated = write_manifest(tmp_path, postgres_url, text="{metadata.says}")
    assert migration(templated).plan().ok
    assert Scene(postgres_url, tmp_path, source__text_query=QUERY).migration.plan().ok
    scene.execute("ALTER TABLE docs ADD body text DEFAULT 'a text'")
    assert Scene(postgres_url, tmp_path, source__columns={"text": "body"}).migration.plan().ok


# Keys


@follows_hint("Add one, which need not be the primary key: ALTER TABLE ")
def test_a_key_of_several_columns_is_refused_with_a_statement_that_works(
    postgres_url: str, tmp_path: Path
) -> None:
    scene = Scene(postgres_url, tmp_path, "Docs", key="reembed_key")
    scene.execute(
        'CREATE TABLE "Docs" (id int, part int, content text, embedding vector(48), '
        "PRIMARY KEY (id, part))"
    )
    scene.fill(ROWS, columns={"id": int, "part": lambda number: number % 3})
    error = refusal(scene)
    assert "has no primary key of one column" in error.message
    statement = re.search(r"ALTER TABLE .* UNIQUE", error.hint)
    assert statement, error.hint
    scene.execute(statement[0])
    scene.there_and_back()
    scene.execute('ALTER TABLE "Docs" DROP reembed_key')


def test_a_column_that_is_named_and_is_no_key(postgres_url: str, tmp_path: Path) -> None:
    scene = Scene(postgres_url, tmp_path, source__columns={"id": "ref"}, key="ref")
    scene.execute(
        "CREATE TABLE docs (id serial PRIMARY KEY, ref int, content text, embedding vector(48))"
    )
    scene.fill(ROWS, columns={"ref": int})
    error = refusal(scene)
    assert "source.columns: {id: NAME}" in error.hint
    scene.execute("ALTER TABLE docs DROP CONSTRAINT docs_pkey, ADD PRIMARY KEY (ref)")
    assert scene.migration.plan().ok
    scene.execute("ALTER TABLE docs DROP CONSTRAINT docs_pkey, ADD PRIMARY KEY (id)")
    assert Scene(postgres_url, tmp_path, source__columns={"id": "id"}).migration.plan().ok


# The manifest


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ({"text_query": "SELECT 1", "columns": {"text": "a"}}, "both say where the text is"),
        ({"text_query": "SELECT 1", "layout": "mem0"}, "is for layout: table"),
        ({"without_vector": "skip"}, "keep"),
    ],
)
def test_what_cannot_be_said_together(source: dict[str, Any], told: str) -> None:
    data = {
        "name": "m", "source": {"url": "postgresql:///db", "collection": "docs"} | source,
        "model": {"provider": "static", "name": "wordllama"},
    }  # fmt: skip
    with pytest.raises(ManifestError, match=told):
        Manifest.parse(data, Path.cwd())


@pytest.mark.parametrize(
    ("key", "value", "hint"),
    [("text_query", "SELECT 1", "{metadata.KEY}"), ("without_vector", "keep", "gets a new one")],
)
def test_chroma_has_neither(
    database: Path, tmp_path: Path, key: str, value: str, hint: str
) -> None:
    scene = Scene(f"chroma:{database}", tmp_path, **{f"source__{key}": value})
    error = refusal(scene)
    assert f"source.{key}" in error.message and hint in error.hint
    assert migration(Scene(f"chroma:{database}", tmp_path).path).plan().ok


def test_a_collection_of_chroma_without_any_text_is_refused(database: Path, tmp_path: Path) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}", text="{metadata.nowhere}")
    problem = migration(path).plan().blockers[-1]
    assert "none of the 40 records of 'docs' gives a text" in problem.message
    assert "{metadata.KEY}" in problem.hint and "source.columns" not in problem.hint
