"""`model: keep`: collections that are moved or built again with their own vectors, looked at
through the stores' own clients."""

from __future__ import annotations

import json
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from tests.support.chroma_data import chroma, chroma_at
from tests.support.commands import Calls, Command
from tests.support.crash import outcome, work
from tests.support.manifests import write_manifest
from tests.support.pg_docs import App, pg_manifest
from tests.support.servers.chroma_server import ChromaServer
from tests.support.texts import sentence

WIDTH = 24


def vector(seed: int, length: float | None = None) -> np.ndarray:
    """A vector of no model's, of another length each."""
    chance = np.random.default_rng(seed)
    made = chance.normal(size=WIDTH)
    made *= (length or chance.uniform(0.5, 4)) / np.linalg.norm(made)
    return made.astype(np.float32)


def fill(url: str, count: int, space: str = "l2", name: str = "docs") -> None:
    with chroma_at(url) as client:
        made = client.create_collection(
            name,
            embedding_function=None,
            configuration={"hnsw": {"space": space}},  # type: ignore[arg-type]
        )
        made.add(
            ids=[f"r{n}" for n in range(count)], documents=[sentence(n) for n in range(count)],
            metadatas=[{"n": n} for n in range(count)],
            embeddings=[vector(n) for n in range(count)],
        )  # fmt: skip


def put(url: str, id: str, text: str, seed: int, name: str = "docs") -> None:
    """As the application writes: with a vector of its own."""
    with chroma_at(url) as client:
        client.get_collection(name, embedding_function=None).upsert(
            ids=[id], documents=[text], metadatas=[{"n": seed}], embeddings=[vector(seed)]
        )


def held(url: str, name: str = "docs") -> tuple[dict[str, tuple[str, int]], dict[str, Any], str]:
    """Rows and vectors by id, and the metric, as an application reads them."""
    with chroma_at(url) as client:
        found: Any = client.get_collection(name, embedding_function=None)
        got: Any = found.get(include=["documents", "metadatas", "embeddings"])
        rows = {id: (text, meta["n"]) for id, text, meta in
                zip(got["ids"], got["documents"], got["metadatas"], strict=True)}  # fmt: skip
        vectors = dict(zip(got["ids"], got["embeddings"], strict=True))
        space: str = found.get_model()["configuration_json"]["hnsw"]["space"]
        return rows, vectors, space


def are(vectors: dict[str, Any], expected: dict[str, np.ndarray]) -> None:
    """Chroma hands a vector back within a unit in the last place of itself."""
    assert vectors.keys() == expected.keys()
    for id, one in expected.items():
        np.testing.assert_allclose(vectors[id], one, rtol=1e-5, atol=1e-7, err_msg=id)


def kept_manifest(folder: Path, url: str, **changes: Any) -> Path:
    """A manifest that keeps the vectors, and names a model which nobody may call."""
    given = {"model": "keep", "swap__keep_old": "0d", **changes}
    return write_manifest(folder, url, **given)


def gates_of(document: Any) -> dict[str, Any]:
    return {gate["name"]: gate for gate in document["verdict"]["gates"]}


def test_another_metric_there_and_back_with_what_was_written(
    tmp_path: Path, command: Command, calls: Calls
) -> None:
    url = f"chroma:{tmp_path / 'db'}"
    fill(url, 120)
    path = kept_manifest(tmp_path, url, target__metric="cosine")
    planned = command("plan", path)
    assert planned.code == 0, planned.out
    assert "nothing is embedded" in planned.out and "from l2 to cosine" in planned.out
    assert "searches give other answers" in planned.out
    ran = command("run", path, "--json")
    assert ran.code == 0, ran.out
    gates = gates_of(ran.json)
    assert gates.keys() == {"integrity", "opening", "index", "old index", "overlap", "vectors",
                            "latency"}  # fmt: skip
    assert gates["overlap"]["figures"]["jaccard"]["mean"] < 0.9, "another metric, other answers"
    put(url, "r1", "another text", 900)
    put(url, "r2", sentence(2), 901)  # its vector alone... and the number that goes with it
    with chroma_at(url) as client:
        docs = client.get_collection("docs", embedding_function=None)
        docs.update(ids=["r3"], embeddings=[vector(902)])  # its vector and nothing else
        docs.delete(ids=["r4"])
    put(url, "new", "a new one", 903)
    swapped = command("swap", path, "--yes", "--json")
    assert swapped.code == 0, swapped.out
    expected = {f"r{n}": vector(n) for n in range(120) if n != 4} | {
        "r1": vector(900), "r2": vector(901), "r3": vector(902), "new": vector(903)
    }  # fmt: skip
    rows, vectors, space = held(url)
    assert space == "cosine" and rows["r1"] == ("another text", 900) and rows["r3"][1] == 3
    are(vectors, expected)
    # The application goes on, and comes back.
    put(url, "later", "a later one", 904)
    put(url, "r5", "yet another", 905)
    with chroma_at(url) as client:
        client.get_collection("docs", embedding_function=None).update(
            ids=["r6"], embeddings=[vector(906)]
        )
    assert command("verify", path).code == 4, "the live collection has changed since"
    back = command("rollback", path, "--yes", "--json")
    assert back.code == 0, back.out
    assert back.json["caught_up"] == 3
    rows, vectors, space = held(url)
    assert space == "l2" and rows["later"] == ("a later one", 904)
    are(vectors, expected | {"later": vector(904), "r5": vector(905), "r6": vector(906)})
    assert command("clean", path, "--yes").code == 0
    assert not calls.path.exists(), "nobody asked a model"
    report = command("report", path, "--json")
    assert report.json["kept"] and report.json["dimensions"] == WIDTH
    assert not sum(stage["stats"].get("tokens", 0) for stage in report.json["stages"])


def test_unit_vectors_keep_their_order_and_a_plan_says_so(tmp_path: Path, command: Command) -> None:
    with chroma(tmp_path / "db") as client:
        made = client.create_collection(
            "docs", embedding_function=None, configuration={"hnsw": {"space": "l2"}}
        )
        made.add(ids=[f"r{n}" for n in range(30)], documents=[sentence(n) for n in range(30)],
                 embeddings=[vector(n, 1.0) for n in range(30)])  # fmt: skip
    path = kept_manifest(tmp_path, f"chroma:{tmp_path / 'db'}", target__metric="cosine")
    planned = command("plan", path)
    assert planned.code == 0 and "have the same length" in planned.out
    gates = gates_of(command("run", path, "--json").json)
    assert gates["overlap"]["figures"]["jaccard"]["mean"] == 1.0


def test_an_index_after_many_deletes_is_compact_again_while_writes_go_on(
    tmp_path: Path, chroma_server: ChromaServer, command: Command
) -> None:
    url, count = chroma_server.url, 300
    fill(url, count, "cosine", "worn")
    gone = {f"r{n}" for n in range(count) if n % 5 < 3}
    with chroma_at(url) as client:
        client.get_collection("worn", embedding_function=None).delete(ids=sorted(gone))
    path = kept_manifest(
        tmp_path, url, source__collection="worn", target__index={"ef_construction": 200},
        swap__accept_window=True,
    )  # fmt: skip
    written: list[int] = []
    stop = threading.Event()

    def write() -> None:
        with chroma_at(url) as client:
            while not stop.wait(0.02):
                seed = 5_000 + len(written)
                try:
                    client.get_collection("worn", embedding_function=None).upsert(
                        ids=[f"w{seed}"], documents=[sentence(seed)], metadatas=[{"n": seed}],
                        embeddings=[vector(seed)],
                    )  # fmt: skip
                except Exception:
                    continue
                written.append(seed)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        ran = command("run", path, "--swap", "--json")
    finally:
        stop.set()
        writer.join(60)
    assert ran.code == 0, ran.out
    assert command("sweep", path).code == 0
    _, vectors, _ = held(url, "worn")
    are(vectors, {f"r{n}": vector(n) for n in range(count) if f"r{n}" not in gone}
        | {f"w{seed}": vector(seed) for seed in written})  # fmt: skip
    assert command("clean", path, "--yes").code == 0
    with chroma_at(url) as client:
        client.delete_collection("worn")


def test_from_chroma_to_postgres(
    tmp_path: Path, docs_url: str, command: Command, calls: Calls
) -> None:
    url = f"chroma:{tmp_path / 'db'}"
    fill(url, 60, "cosine")
    path = kept_manifest(
        tmp_path, url, target__url=docs_url, target__collection="moved", target__metric="l2"
    )
    ran = command("run", path, "--swap", "--json")
    assert ran.code == 0, ran.out
    told = " ".join(ran.json["swap"]["messages"])
    assert "'moved' instead of 'docs'" in told and "l2 instead of cosine" in told
    put(url, "late", "written to the old one", 700)
    assert command("sweep", path).code == 0
    with psycopg.connect(docs_url, autocommit=True) as connection:
        found = connection.execute(
            "SELECT id, document, metadata->>'n', embedding::text FROM moved"
        ).fetchall()
        assert {id: (text, int(n)) for id, text, n, _ in found} == held(url)[0]
        are({id: json.loads(one) for id, _, _, one in found},
            {f"r{n}": vector(n) for n in range(60)} | {"late": vector(700)})  # fmt: skip
        (index,) = connection.execute(
            "SELECT indexdef FROM pg_indexes WHERE tablename = 'moved' AND indexdef LIKE '%hnsw%'"
        ).fetchall()
        assert "vector_l2_ops" in index[0]
        connection.execute(
            "UPDATE moved SET embedding = %s WHERE id = 'r7'", [json.dumps(vector(701).tolist())]
        )
    assert command("rollback", path, "--yes").code == 0, "back with the vector, too"
    are(held(url)[1], {f"r{n}": vector(n) for n in range(60)}
        | {"late": vector(700), "r7": vector(701)})  # fmt: skip
    assert not calls.path.exists()


@pytest.mark.parametrize("half", [False, True])
def test_from_postgres_to_chroma(
    tmp_path: Path, docs_url: str, command: Command, calls: Calls, half: bool
) -> None:
    with closing(App(docs_url)) as app:
        if half:
            app.run("DROP INDEX docs_by_vector")
            app.run("ALTER TABLE {t} ALTER embedding TYPE halfvec(48)")
        app.run("UPDATE {t} SET meta = %s WHERE id = 2",
                json.dumps({"a": {"b": [1, 2], "c": None}, "mixed": [1, "x"]}))  # fmt: skip
        stored = dict(app.run("SELECT id, embedding::text FROM {t}"))
    url = f"chroma:{tmp_path / 'other'}"
    with chroma(tmp_path / "other"):
        pass
    path = pg_manifest(tmp_path, docs_url, model="keep", target__url=url, target__collection="docs")
    ran = command("run", path, "--swap", "--json")
    assert ran.code == 0, ran.out
    with chroma_at(url) as client:
        got: Any = client.get_collection("docs", embedding_function=None).get(
            include=["embeddings", "metadatas"]
        )
    are(dict(zip(got["ids"], got["embeddings"], strict=True)),
        {str(id): np.array(json.loads(one), np.float32) for id, one in stored.items()})  # fmt: skip
    assert not calls.path.exists()
    metadata = dict(zip(got["ids"], got["metadatas"], strict=True))
    assert metadata["1"]["meta.n"] == 1 and metadata["1"]["slug"] == "s1"
    assert metadata["2"]["meta.a.b"] == [1, 2] and metadata["2"]["meta.mixed"] == '[1, "x"]'
    with chroma_at(url) as client:
        client.get_collection("docs", embedding_function=None).update(
            ids=["5"], documents=["rewritten there"], metadatas=[{"meta.n": 77}],
            embeddings=[got["embeddings"][0]],
        )  # fmt: skip
    back = command("rollback", path, "--yes", "--json")
    assert back.code == 0, back.out
    with closing(App(docs_url)) as app:
        assert app.run("SELECT content, meta->>'n' FROM {t} WHERE id = 5") == [
            ("rewritten there", "77")
        ]


@pytest.mark.parametrize("metric", ["l2", "ip"])
def test_a_table_gets_another_metric_and_index(
    tmp_path: Path, docs_url: str, command: Command, metric: str
) -> None:
    path = pg_manifest(
        tmp_path, docs_url, model="keep", target__metric=metric,
        target__index={"type": "ivfflat", "lists": 4} if metric == "l2" else {},
    )  # fmt: skip
    with closing(App(docs_url)) as app:
        before = dict(app.run("SELECT id, embedding::text FROM {t}"))
    ran = command("run", path, "--json")
    assert ran.code == 0, ran.out
    assert gates_of(ran.json)["integrity"]["figures"]["vectors_exact"] == 40
    with closing(App(docs_url)) as app:
        app.run("UPDATE {t} SET embedding = (SELECT embedding FROM {t} WHERE id = 2) WHERE id = 1")
    assert command("swap", path, "--yes").code == 0
    with closing(App(docs_url)) as app:
        assert dict(app.run("SELECT id, embedding::text FROM {t}")) == before | {1: before[2]}
        (index,) = app.run("SELECT indexdef FROM pg_indexes WHERE indexname = 'docs_by_vector'")
        kind = "ivfflat (embedding)" if metric == "l2" else "hnsw (embedding vector_ip_ops)"
        assert kind in index[0], "l2 is the default, which Postgres leaves out"
        app.run("UPDATE {t} SET embedding = %s WHERE id = 3", before[4])
        app.run("INSERT INTO {t} (id, content, embedding) VALUES (900, 'new', %s)", before[5])
    assert command("rollback", path, "--yes").code == 0
    with closing(App(docs_url)) as app:
        now = dict(app.run("SELECT id, embedding::text FROM {t}"))
        assert now == before | {1: before[2], 3: before[4], 900: before[5]}


def test_rows_without_a_vector_are_refused_or_stay(
    tmp_path: Path, docs_url: str, command: Command
) -> None:
    with closing(App(docs_url)) as app:
        app.run("UPDATE {t} SET embedding = NULL WHERE id IN (3, 4)")
        texts = app.rows()
    path = pg_manifest(tmp_path, docs_url, model="keep", target__metric="l2")
    refused = command("plan", path, "--json")
    assert refused.code == 5 or not refused.json["ok"]
    assert "2 rows" in refused.out and "without_vector: keep" in refused.out
    pg_manifest(
        tmp_path, docs_url, model="keep", target__metric="l2", source__without_vector="keep"
    )
    ran = command("run", path, "--swap", "--json")
    assert ran.code == 0, ran.out
    with closing(App(docs_url)) as app:
        assert app.rows() == texts
        assert app.run("SELECT id FROM {t} WHERE embedding IS NULL ORDER BY id") == [(3,), (4,)]


def test_a_part_is_moved_with_where(tmp_path: Path, command: Command) -> None:
    url = f"chroma:{tmp_path / 'db'}"
    fill(url, 40)
    path = kept_manifest(
        tmp_path, url, source__where={"n": {"$lt": 10}}, swap__kind="config",
        target__collection="few",
    )  # fmt: skip
    ran = command("run", path, "--swap", "--json")
    assert ran.code == 0, ran.out
    are(held(url, "few")[1], {f"r{n}": vector(n) for n in range(10)})


@pytest.mark.parametrize("key", [{"text": "{metadata.n}"}, {"verify__queries": "q.jsonl"},
                                 {"embed__max_cost": 2.0}])  # fmt: skip
def test_what_is_for_a_model_is_refused(tmp_path: Path, command: Command, key: Any) -> None:
    path = kept_manifest(tmp_path, "chroma:./db", **key)
    refused = command("plan", path)
    assert refused.code == 5 and "model: keep embeds nothing" in refused.err


KILLS = (
    ("run()", "journal", 5), ("run()", "journal", 9), ("run()", "add", 2), ("run()", "torn", 11),
    ("swap()", "journal", 3), ("swap()", "journal", 6), ("rollback()", "journal", 3),
    ("rollback()", "add", 1),
)  # fmt: skip


@pytest.mark.parametrize(
    ("step", "kill", "at"),
    [pytest.param(*one, marks=() if n % 4 == 0 else pytest.mark.long)
     for n, one in enumerate(KILLS)],
)  # fmt: skip
def test_killed_anywhere_the_same_command_goes_on(
    tmp_path: Path, calls: Calls, step: str, kill: str, at: int
) -> None:
    url = f"chroma:{tmp_path / 'db'}"
    fill(url, 130)
    path = kept_manifest(tmp_path, url, target__metric="cosine")
    expected = {f"r{n}": vector(n) for n in range(130)}
    for number, one in enumerate(("run()", "swap()", "rollback()")):
        if one == step:
            work(path, one, kill, at)
        assert work(path, one) == 0, outcome(path)
        _, vectors, space = held(url)
        assert space == ("cosine" if one == "swap()" else "l2")
        are(vectors, expected)
        with chroma_at(url) as client:
            client.get_collection("docs", embedding_function=None).update(
                ids=[f"r{number}"], embeddings=[vector(800 + number)]
            )
        expected[f"r{number}"] = vector(800 + number)
    assert not calls.path.exists()
