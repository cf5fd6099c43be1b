"""reembed.live on Postgres: the right table or column, and the right query model, at every call."""

from __future__ import annotations

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg import errors

from reembed import live
from reembed.embedders import kept
from reembed.errors import CollectionNotFoundError, ModelChangedError, PreflightError
from reembed.manifest import Model
from tests.support.manifests import migration
from tests.support.pg_docs import app, make_docs, pg_manifest
from tests.support.texts import sentence, vector_of

OLD = Model(provider="python", name="counting_model:old")
OTHER = Model(provider="python", name="counting_model:other")


@pytest.fixture(autouse=True)
def _models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(params=["names", "columns"])
def moving(request: pytest.FixtureRequest, docs_url: str, tmp_path: Path) -> Any:
    """A migration of `docs`, by either way of exchange."""
    if request.param == "columns":
        with app(docs_url) as docs:
            docs.run("CREATE VIEW titles AS SELECT id, content FROM docs")
    manifest = pg_manifest(tmp_path, docs_url, target__embedding_function="record")
    live.trust(manifest)
    found = migration(manifest)
    found.run()
    return found


@pytest.fixture
def docs(docs_url: str, moving: Any) -> Any:
    with live.open(docs_url, "docs", model=OLD) as opened:
        yield opened


def width(docs: Any) -> int:
    (vector,) = docs.get(ids="1", include=["embeddings"])["embeddings"]
    return len(vector)


def test_every_call_follows_a_swap_there_and_back_and_there(
    docs: Any, moving: Any, docs_url: str
) -> None:
    ways = [(48, lambda: None), (64, moving.swap), (48, moving.rollback), (64, moving.swap)]
    for place, (dimensions, move) in enumerate(ways):
        move()
        assert width(docs) == dimensions
        for number in (1, 7, 23):
            found = docs.query(query_texts=[sentence(number)], n_results=2)
            assert found["ids"][0][0] == str(number)
            assert found["documents"][0][0] == sentence(number)
            assert found["metadatas"][0][0]["n"] == number
            assert abs(found["distances"][0][0]) < 1e-5
        (id,) = docs.add(documents=[f"added in round {place}"], metadatas=[{"slug": f"r{place}"}])
        assert docs.query(query_texts=f"added in round {place}", n_results=1)["ids"] == [[id]]
        assert docs.count() == 41 + place
    moving.clean()
    with live.open(docs_url, "docs", model=OLD) as again:  # another process's, years later
        assert again.query(query_texts=[sentence(3)], n_results=1)["ids"] == [["3"]]
        assert (again.leads().said or {})["name"] == "counting_model:new"
    with app(docs_url) as direct:
        assert direct.wrong_vectors("new") == []


def test_a_process_that_embeds_with_the_old_model_is_told_what_happened(
    moving: Any, docs_url: str
) -> None:
    with live.open(docs_url, "docs", model=OLD, embeds_with=OLD) as docs:
        mine = [vector_of("old", sentence(5)).tolist()]
        assert docs.query(query_embeddings=mine, n_results=1)["ids"] == [["5"]]
        moving.swap()
        for call in (
            lambda: docs.query(query_embeddings=mine),
            lambda: docs.add(documents=["x"], embeddings=mine),
            docs.check,
        ):
            with pytest.raises(ModelChangedError) as told:
                call()
            assert "docs was moved to python counting_model:new (64 dimensions) on 20" in str(
                told.value
            )
            assert "embeds with python counting_model:old (48 dimensions)" in str(told.value)
        assert docs.query(query_texts=[sentence(5)], n_results=1)["ids"] == [["5"]]
        moving.rollback()
        assert docs.query(query_embeddings=mine, n_results=1)["ids"] == [["5"]]


def test_another_model_of_the_same_dimensions_is_told_at_once(
    docs_url: str, tmp_path: Path
) -> None:
    """No store can see that: the vectors fit, and the answers are garbage."""
    manifest = pg_manifest(tmp_path, docs_url, model=OTHER.settings() | {"dimensions": 48})
    live.trust(manifest)
    moving = migration(manifest)
    moving.run()

    def embed(texts: list[str]) -> list[Any]:
        return [vector_of("old", text) for text in texts]

    with (
        live.open(docs_url, "docs", model=OLD, embeds_with=OLD) as by_name,
        live.open(docs_url, "docs", model=OLD, embeds_with=embed) as by_probe,
    ):
        moving.swap()
        for docs in (by_name, by_probe):
            with pytest.raises(ModelChangedError, match="moved to python counting_model:other"):
                docs.query(query_embeddings=embed(["any"]))
            assert docs.query(query_texts=[sentence(5)], n_results=1)["ids"] == [["5"]]
        with pytest.raises(ModelChangedError, match=r"another model \(48 dimensions\)"):
            live.open(docs_url, "docs", embeds_with=embed)
        with live.open(
            docs_url, "docs", embeds_with=lambda texts: kept.embed(OTHER, texts, query=True)
        ) as right:
            right.check()


def test_a_swap_while_texts_are_embedded_embeds_them_again(
    docs: Any, moving: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, models = kept.embed, []

    def slow(model: Model, texts: Any, *, query: bool) -> Any:
        vectors = real(model, texts, query=query)
        models.append(model.name)
        if len(models) == 1:
            moving.swap()
        return vectors

    monkeypatch.setattr(kept, "embed", slow)
    assert docs.query(query_texts=[sentence(9)], n_results=1)["ids"] == [["9"]]
    assert models == ["counting_model:old", "counting_model:new"]
    (id,) = docs.add(documents=[sentence(9)])
    (one, other) = docs.get(ids=["9", id], include=["embeddings"])["embeddings"]
    np.testing.assert_allclose(one, other, rtol=1e-5)


def test_threads_and_tasks_go_on_over_swaps(docs: Any, moving: Any, docs_url: str) -> None:
    """More threads than connections, and an event loop, while the name moves there and back."""
    stop, asked = threading.Event(), list[str]()

    def work(number: int) -> None:
        while not stop.is_set():
            found = docs.query(query_texts=[sentence(number)], n_results=1)
            assert found["ids"] == [[str(number)]]
            if len(asked) < 60:  # an index of m = 8 overlooks some among thousands that are alike
                (id,) = docs.add(documents=[f"of thread {number} {len(asked)}"])
                asked.append(id)

    async def tasks() -> None:
        while not stop.is_set():
            found = await asyncio.gather(
                *(docs.aquery(query_texts=[sentence(n)], n_results=1) for n in range(1, 6))
            )
            assert [one["ids"][0][0] for one in found] == [str(n) for n in range(1, 6)]

    with ThreadPoolExecutor(13) as threads:
        running = [threads.submit(work, n) for n in range(1, 13)]
        running.append(threads.submit(lambda: asyncio.run(tasks())))
        try:
            for move in (moving.swap, moving.rollback):
                move()
        finally:
            stop.set()
        for one in running:
            one.result()
    assert set(asked) <= set(docs.get()["ids"])
    with app(docs_url) as direct:
        assert direct.wrong_vectors("old") == []


def test_records_are_written_as_the_table_has_them(docs_url: str, tmp_path: Path) -> None:
    pg_manifest(tmp_path, docs_url)
    with live.open(docs_url, "docs", model=OLD) as docs, app(docs_url) as direct:
        (id,) = docs.add(
            documents=["a new one"], metadatas=[{"slug": "new", "price": 3.5, "n": 100, "%s": "%"}]
        )
        assert direct.run("SELECT slug, price::text, meta FROM {t} WHERE id = %s", int(id)) == [
            ("new", "3.500", {"n": 100, "%s": "%"})
        ]
        with pytest.raises(PreflightError, match="duplicate key"):
            docs.add([id], documents=["again"])
        docs.upsert([id, "900"], documents=["rewritten", "made"])
        assert docs.query(query_texts=["rewritten"], n_results=1)["ids"] == [[id]]
        assert docs.get(ids=["900"])["documents"] == ["made"]
        docs.update([id], metadatas=[{"n": 101}])
        assert docs.get(where={"n": 101})["ids"] == [id]
        assert docs.update(["555"], documents=["nobody"]) == []
        for bad in ({"ids": ["1", "1"]}, {"ids": ["1"], "documents": ["a", "b"]}):
            with pytest.raises(ValueError, match=r"twice|different lengths"):
                docs.add(**bad)
        with pytest.raises(ValueError, match="never deletes all"):
            docs.delete()
        assert docs.delete(where={"%s": "%"}) == 0
        assert docs.delete(ids=[id, "900"]) == 2
        assert docs.count() == 40
        direct.run("CREATE TABLE bare (id text PRIMARY KEY, body text, embedding vector(48))")
        with live.open(docs_url, "bare", model=OLD) as bare:
            bare.add(["a"], documents=["text"])
            with pytest.raises(ValueError, match="no column 'topic'"):
                bare.add(["b"], documents=["text"], metadatas=[{"topic": "x"}])
            with pytest.raises(ValueError, match="no column 'topic'"):
                bare.get(where={"topic": "x"})


@pytest.mark.parametrize(
    ("where", "ids"),
    [
        ({"n": 3}, {3}),
        ({"n": {"$gt": 38}}, {39, 40}),
        ({"n": {"$in": [1, 2, 77]}}, {1, 2}),
        ({"$and": [{"n": {"$gte": 5}}, {"n": {"$lt": 7}}]}, {5, 6}),
        ({"$or": [{"slug": "s9"}, {"price": {"$lte": 2.1}}]}, {1, 2, 9}),
        ({"n": {"$gt": "a text"}}, set()),
        ({"nothing": {"$ne": 1}, "n": {"$nin": list(range(4, 41))}}, {1, 2, 3}),
    ],
)
def test_conditions_are_chromas(docs_url: str, tmp_path: Path, where: Any, ids: set[int]) -> None:
    pg_manifest(tmp_path, docs_url)
    with live.open(docs_url, "docs", model=OLD) as docs:
        assert {int(id) for id in docs.get(where=where)["ids"]} == ids
        found = docs.query(query_texts=["anything"], n_results=40, where=where)
        assert {int(id) for id in found["ids"][0]} == ids


def test_what_cannot_be_known_is_said(docs_url: str, tmp_path: Path) -> None:
    manifest = pg_manifest(tmp_path, docs_url)
    with live.open(docs_url, "docs") as docs:
        with pytest.raises(PreflightError, match="does not say which model"):
            docs.query(query_texts=["any"])
        assert docs.count() == 40
    with pytest.raises(CollectionNotFoundError, match="no table 'dosc'"):
        live.open(docs_url, "dosc")
    live.trust(manifest)
    moving = migration(manifest)
    moving.run(swap=True)
    with app(docs_url) as direct:
        direct.run("CREATE TABLE backup (LIKE {t} INCLUDING ALL)")
    with (
        live.open(docs_url, "backup", model=OLD) as copied,
        pytest.raises(PreflightError, match="its comment was copied"),
    ):
        copied.query(query_texts=["any"])
    with live.open(docs_url, "docs") as docs, pytest.raises(ValueError, match=r"\$near"):
        docs.get(where={"n": {"$near": 3}})


def test_the_roles_own_limits_and_policies_hold(postgres: Any, docs_url: str) -> None:
    with psycopg.connect(docs_url, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS reader")
        connection.execute("CREATE ROLE reader LOGIN")
        connection.execute("GRANT SELECT ON docs TO reader")
        connection.execute("ALTER ROLE reader SET statement_timeout = '7s'")
        connection.execute("ALTER TABLE docs ENABLE ROW LEVEL SECURITY")
        connection.execute("CREATE POLICY few ON docs USING (id < 4)")
    try:
        url = docs_url.replace("postgresql://postgres@", "postgresql://reader@")
        with live.open(url, "docs", model=OLD) as docs:
            assert docs.get()["ids"] == ["1", "2", "3"]
            with docs._at("ACCESS SHARE") as (connection, _):
                assert connection.execute("SHOW statement_timeout").fetchone() == ("7s",)
            with pytest.raises(PreflightError, match="permission denied"):
                docs.delete(ids=["1"])
    finally:
        with psycopg.connect(docs_url, autocommit=True) as connection:
            connection.execute("DROP OWNED BY reader CASCADE")
            connection.execute("DROP ROLE reader")


def test_halves_and_other_metrics_are_asked_as_they_are(postgres_url: str, tmp_path: Path) -> None:
    make_docs(postgres_url, 12)
    pg_manifest(tmp_path, postgres_url)
    with app(postgres_url) as direct, live.open(postgres_url, "docs", model=OLD) as docs:
        direct.run("DROP INDEX docs_by_vector")
        direct.run("ALTER TABLE {t} ALTER embedding TYPE halfvec(48)")
        direct.run("CREATE INDEX ON {t} USING hnsw (embedding halfvec_l2_ops)")
        found = docs.query(query_texts=[sentence(4)], n_results=12)
        assert found["ids"][0][0] == "4"
        assert found["distances"][0] == sorted(found["distances"][0])
        mine = vector_of("old", sentence(4))
        theirs = np.array(docs.get(ids=["7"], include=["embeddings"])["embeddings"][0])
        place = found["ids"][0].index("7")
        np.testing.assert_allclose(
            found["distances"][0][place], np.sum((mine - theirs) ** 2), rtol=0.02
        )
        docs.upsert(["7"], documents=[sentence(4)])
        assert set(docs.query(query_texts=[sentence(4)], n_results=2)["ids"][0]) == {"4", "7"}


def test_no_transaction_is_left_open_by_an_error(docs_url: str, tmp_path: Path) -> None:
    pg_manifest(tmp_path, docs_url)
    with live.open(docs_url, "docs", model=OLD) as docs, app(docs_url) as direct:
        for _ in range(12):
            with pytest.raises(PreflightError, match="different vector dimensions 48 and 2"):
                docs.query(query_embeddings=[[1.0, 2.0]])
        (open_ones,) = direct.run(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'reembed live' AND "
            "state <> 'idle' AND datname = current_database()"
        )
        assert open_ones == (0,)
        direct.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = "
            "'reembed live' AND datname = current_database()"
        )
        with pytest.raises((Exception,)) as lost:
            docs.count()
        assert not isinstance(lost.value, errors.Error)
        assert docs.count() == 40


@pytest.mark.parametrize("stays", [True, False])
def test_the_model_stays_on_record_where_that_is_asked_for(
    docs_url: str, tmp_path: Path, stays: bool
) -> None:
    changes = {"target__embedding_function": "record"} if stays else {}
    manifest = pg_manifest(tmp_path, docs_url, **changes)
    live.trust(manifest)
    moving = migration(manifest)
    moving.run(swap=True)
    moving.clean()
    with live.open(docs_url, "docs") as docs:
        if stays:
            assert docs.query(query_texts=[sentence(3)], n_results=1)["ids"] == [["3"]]
        else:
            with pytest.raises(PreflightError, match="does not say which model"):
                docs.query(query_texts=[sentence(3)])
    with app(docs_url) as direct:
        ((comment,),) = direct.run(
            "SELECT col_description(attrelid, attnum) FROM pg_attribute WHERE attrelid = "
            "'docs'::regclass AND attname = 'embedding'"
        )
    if not stays:
        assert comment is None
        return
    note = json.loads(comment.removeprefix("reembed:"))
    assert set(note) == {"model", "moved", "of", "record"}
    assert note["model"]["name"] == "counting_model:new"
