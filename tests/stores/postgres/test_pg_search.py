"""Search in Postgres: what is asked about an index is asked of the index."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
import yaml

from reembed.stores.registry import open_store
from reembed.stores.store import Store
from tests.support.commands import Command
from tests.support.pg_scene import Scene

ROWS, DIMENSIONS = 300, 48
PLANNER = "SELECT format('ALTER DATABASE %I SET random_page_cost = 0.01', current_database())"
USES = "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'by_vector'"


@pytest.fixture
def scene(postgres_url: str, tmp_path: Path) -> Scene:
    """A table so small that the planner reads all of it."""
    made = Scene(postgres_url, tmp_path)
    made.execute(
        f"CREATE TABLE docs (id serial PRIMARY KEY, content text, embedding vector({DIMENSIONS}))",
        "CREATE INDEX by_vector ON docs USING hnsw (embedding vector_cosine_ops)",
    )
    made.fill(ROWS)
    made.execute("ANALYZE docs")
    return made


@pytest.fixture
def queries() -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.random.default_rng(0).normal(size=(20, DIMENSIONS)).astype(np.float32)


def opened(url: str) -> Iterator[Store]:
    store = open_store(url)
    yield store
    store.close()


def uses(url: str) -> int:
    """How often the index was searched by sessions that are closed."""
    with psycopg.connect(url) as connection:
        row = connection.execute(USES).fetchone()
    return int(row[0]) if row else 0


def test_a_search_goes_through_the_index_though_the_planner_would_leave_it_out(
    scene: Scene, queries: np.ndarray[tuple[int, int], np.dtype[np.float32]]
) -> None:
    found, freely = [list[list[str]](), list[list[str]]()]
    for store in opened(scene.url):
        id = store.catalog.describe("docs").id
        found = store.to_search().query(id, queries, 3)
    assert uses(scene.url) == len(queries), "each of them through the index"
    for store in opened(scene.url):
        assert store.to_search().leaves_index_out(id, queries, 3)
        _ = store.to_search().query(id, queries, 3)  # a plan that is kept is not used freely
        freely = store.to_search().query(id, queries, 3, freely=True)
    assert uses(scene.url) == 2 * len(queries), "and freely without it"
    assert [len(row) for row in found] == [len(row) for row in freely] == [3] * len(queries)


def test_a_planner_that_takes_the_index_is_not_told_of(
    scene: Scene, queries: np.ndarray[tuple[int, int], np.dtype[np.float32]]
) -> None:
    ((statement,),) = scene.execute(PLANNER)
    scene.execute(statement)
    for store in opened(scene.url):
        id = store.catalog.describe("docs").id
        assert not store.to_search().leaves_index_out(id, queries, 3)
        _ = store.to_search().query(id, queries, 3, freely=True)
    assert uses(scene.url) == len(queries)


def test_a_table_without_an_index_leaves_none_out(
    scene: Scene, queries: np.ndarray[tuple[int, int], np.dtype[np.float32]]
) -> None:
    scene.execute("DROP INDEX by_vector")
    for store in opened(scene.url):
        id = store.catalog.describe("docs").id
        assert not store.to_search().leaves_index_out(id, queries, 3)
        assert store.to_search().query(id, queries, 3) == store.to_search().query(
            id, queries, 3, freely=True
        )


def test_a_verdict_tells_of_searches_that_leave_the_index_out(scene: Scene) -> None:
    verdict = scene.run().verdict
    assert verdict is not None
    gates = {gate.name: gate for gate in verdict.gates}
    assert gates["latency"].figures["new"]["without_index"] is True
    assert "answered without the index" in gates["latency"].message


@pytest.mark.parametrize(
    ("index", "place"),
    [
        ({"type": "hnsw", "m": 2, "ef_construction": 4}, 0),
        ({"type": "ivfflat", "lists": 60}, 0),
        ({"type": "ivfflat", "lists": 60}, 1),
    ],
)
def test_what_is_said_of_a_weak_index_leads_to_a_verdict_that_passes(
    index: dict[str, Any], place: int, postgres_url: str, tmp_path: Path, command: Command
) -> None:
    made = Scene(postgres_url, tmp_path, target__index=index, verify__index_recall=0.97)
    made.execute(
        f"CREATE TABLE docs (id serial PRIMARY KEY, content text, embedding vector({DIMENSIONS}))"
    )
    made.fill(600)
    ((statement,),) = made.execute(PLANNER)
    made.execute(statement)
    refused = made.migration.run().verdict
    assert refused is not None and {g.name: g.status for g in refused.gates}["index"] == "fail"
    manifest = tmp_path / "m.yaml"
    way = command("status", manifest, "--json").json["remedies"][place]
    for setting in re.findall(r"ALTER DATABASE .. (SET [\w.]+ = \d+)", way["does"]):
        made.execute(f"DO $$ BEGIN EXECUTE format('ALTER DATABASE %I {setting}', "
                     "current_database()); END $$")  # fmt: skip
    data = yaml.safe_load(manifest.read_text())
    for key, value in re.findall(r"target\.index\.(\w+): (\w+)", way["does"]):
        data["target"]["index"][key] = yaml.safe_load(value)
    if "without lists" in way["does"]:
        del data["target"]["index"]["lists"]
    manifest.write_text(yaml.safe_dump(data))
    done = command(*shlex.split(way["command"])[1:], "--json")
    assert done.code == 0 and done.json["verdict"]["passed"], done.out[-3000:]
