"""`reembed audit`: what is wrong with vectors is found, named and placed, in both stores."""

from __future__ import annotations

import json
import random
import shlex
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from tests.stories.test_backup_kills import run
from tests.support.chroma_data import chroma
from tests.support.commands import Calls, Command
from tests.support.following import follows_hint
from tests.support.texts import CASES, sentence, vector_of

OLD = "python:counting_model:old"
COUNT = 400
WEEK = range(200, 240)

Vectors = np.ndarray[Any, Any]


def title(number: int) -> str:
    return f"heading {number * 7}"


class InChroma:
    """An application's collection in a Chroma folder."""

    url = "chroma:db"

    def read(self) -> dict[str, Any]:
        with chroma(Path("db")) as client:
            got: Any = client.get_collection("docs", embedding_function=None).get(
                include=["documents", "metadatas", "embeddings"]
            )
        rows = zip(got["ids"], got["documents"], got["metadatas"], got["embeddings"], strict=True)
        return {row[0]: (row[1], row[2], np.asarray(row[3], np.float32)) for row in rows}

    def change(self, number: int, text: str) -> None:
        """As the application changes a text, with the right model."""
        with chroma(Path("db")) as client:
            client.get_collection("docs", embedding_function=None).update(
                ids=[f"r{number:04d}"], documents=[text], embeddings=[vector_of("old", text)]
            )

    def __init__(self, vectors: Vectors) -> None:
        with chroma(Path("db")) as client:
            made = client.create_collection("docs", embedding_function=None)
            made.add(
                ids=[f"r{number:04d}" for number in range(COUNT)],
                documents=[sentence(number) for number in range(COUNT)],
                metadatas=[_metadata(number) for number in range(COUNT)],
                embeddings=vectors,
            )


class InPostgres:
    """An application's own table."""

    def read(self) -> dict[str, Any]:
        with closing(psycopg.connect(self.url)) as db:
            rows = db.execute("SELECT id, text, metadata, embedding::text FROM docs").fetchall()
        return {row[0]: (row[1], row[2], np.array(json.loads(row[3]), np.float32)) for row in rows}

    def change(self, number: int, text: str) -> None:
        """As the application changes a text, with the right model."""
        vector = str(vector_of("old", text).tolist())
        with closing(psycopg.connect(self.url, autocommit=True)) as db:
            db.execute(
                "UPDATE docs SET text = %s, embedding = %s WHERE id = %s",
                [text, vector, f"r{number:04d}"],
            )

    def __init__(self, vectors: Vectors, url: str) -> None:
        self.url = url
        with closing(psycopg.connect(url, autocommit=True)) as db:
            db.execute("CREATE EXTENSION IF NOT EXISTS vector")
            db.execute(
                "CREATE TABLE docs (id text PRIMARY KEY, text text, metadata jsonb, "
                "embedding vector(48))"
            )
            with db.cursor() as cursor:
                cursor.executemany(
                    "INSERT INTO docs VALUES (%s, %s, %s, %s)",
                    [(f"r{number:04d}", sentence(number), json.dumps(_metadata(number)),
                      str(vector.tolist())) for number, vector in enumerate(vectors)],
                )  # fmt: skip


def _metadata(number: int) -> dict[str, Any]:
    day = 1 + number // 20
    return {
        "created_at": f"2026-03-{day:02d}T{number % 20:02d}:00:00", "title": title(number),
        "user": f"u{number % 7}",
    }  # fmt: skip


def right() -> Vectors:
    return np.stack([vector_of("old", sentence(number)) for number in range(COUNT)])


@pytest.fixture(params=["chroma", "postgres"])
def make(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    shutil.copy(CASES / "counting_model.py", tmp_path)
    monkeypatch.chdir(tmp_path)
    if request.param == "chroma":
        yield InChroma
    else:
        url = request.getfixturevalue("postgres_url")
        yield lambda vectors: InPostgres(vectors, url)


@pytest.fixture
def in_chroma(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(CASES / "counting_model.py", tmp_path)
    monkeypatch.chdir(tmp_path)


def finding(document: dict[str, Any], kind: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = [one for one in document["findings"] if one["kind"] == kind]
    assert len(found) == 1, document["findings"]
    return found[0]


def test_a_week_of_another_model_is_named_and_placed(make: Any, command: Command) -> None:
    vectors = right()
    vectors[list(WEEK)] = [vector_of("other", sentence(number)) for number in WEEK]
    app = make(vectors)
    outcome = command("audit", app.url, "--model", OLD, "--json")
    assert outcome.code == 4, outcome.err
    found = outcome.json
    assert set(found["named"]) == {f"r{number:04d}" for number in WEEK}
    foreign = finding(found, "foreign")
    assert foreign["records"] >= 38
    keys = {place["key"]: place for place in foreign["places"]}
    assert keys["created_at"]["low"] == "2026-03-11T00:00:00+00:00"
    assert keys["created_at"]["high"] == "2026-03-12T19:00:00+00:00"
    assert found["mend"]["tokens"] > 0
    shown = command("audit", app.url, "--model", OLD)
    assert shown.code == 4
    assert "that another model made" in shown.out
    assert "created_at from 2026-03-11" in shown.out


def test_what_is_right_is_called_right(make: Any, command: Command) -> None:
    app = make(right())
    outcome = command("audit", app.url, "--model", OLD)
    assert outcome.code == 0, outcome.out
    assert "All is right" in outcome.out
    every = command("audit", app.url, "--model", OLD, "--all", "--json")
    assert (every.code, every.json["judged"]["by_model"]) == (0, COUNT)
    assert every.json["judged"]["screened"] == 0


def holds(app: Any, vectors: Vectors, changed: dict[int, str] | None = None) -> None:
    """Every record is there with its text, its metadata and this vector."""
    read, changed = app.read(), changed or {}
    assert len(read) == COUNT
    for number in range(COUNT):
        text, metadata, vector = read[f"r{number:04d}"]
        assert text == changed.get(number, sentence(number))
        assert metadata == _metadata(number)
        np.testing.assert_allclose(vector, vectors[number], atol=1e-4)


@follows_hint("Add --yes to do it.", "`reembed audit --fix` of the same URL")
def test_the_bad_ones_are_mended_and_given_back(make: Any, command: Command, calls: Calls) -> None:
    vectors = right()
    vectors[list(WEEK)] = [vector_of("other", sentence(number)) for number in WEEK]
    vectors[7] = 0
    app = make(vectors)
    without = command("audit", app.url, "--model", OLD, "--fix", "--json")
    assert without.code == 4
    holds(app, vectors)
    step = next(one for one in without.json["steps"] if "--fix" in one["command"])
    before = calls.repeated("old", COUNT)
    fixed = command(*shlex.split(step["command"])[1:], "--json")
    assert fixed.code == 0, fixed.out
    assert fixed.json["written"] == len(WEEK) + 1
    assert calls.repeated("old", COUNT) == before, "what was asked for is in the cache"
    holds(app, right())
    assert command("audit", app.url, "--model", OLD).code == 0
    assert command("check", ".reembed/backups").code == 0

    app.change(205, "a text of today")
    back = next(one for one in fixed.json["steps"] if "--undo" in one["command"])
    assert command(*shlex.split(back["command"].replace(" --yes", ""))[1:]).code == 2
    undone = command(*shlex.split(back["command"])[1:], "--json")
    assert undone.code == 4
    assert undone.json["left"] == {"r0205": "it was changed since"}
    expected = vectors.copy()
    expected[205] = vector_of("old", "a text of today")
    holds(app, expected, {205: "a text of today"})
    once_more = command(*shlex.split(back["command"])[1:])
    assert (once_more.code, "no mending to undo" in once_more.err) == (2, True)


def test_vectors_are_mended_at_the_length_that_the_application_gives_them(
    make: Any, command: Command
) -> None:
    scaled = right() / np.linalg.norm(right(), axis=1, keepdims=True)
    vectors = scaled.copy()
    vectors[list(WEEK)] = [vector_of("other", sentence(number)) for number in WEEK]
    app = make(vectors)
    assert command("audit", app.url, "--model", OLD, "--fix", "--yes").code == 0
    holds(app, scaled)
    assert command("audit", app.url, "--model", OLD, "--all").code == 0


def test_a_record_that_is_changed_meanwhile_keeps_what_was_written(
    make: Any, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reembed.stores.collection import Collection

    vectors = right()
    vectors[list(WEEK)] = [vector_of("other", sentence(number)) for number in WEEK]
    app = make(vectors)
    write, done = Collection.set_vectors, list[int]()

    def between(self: Collection, ids: Any, given: Any) -> None:
        if not done:  # after the look and before the write
            done.append(1)
            app.change(210, "a text of this moment")
        write(self, ids, given)

    monkeypatch.setattr(Collection, "set_vectors", between)
    assert command("audit", app.url, "--model", OLD, "--fix", "--yes").code == 0
    expected = right()
    expected[210] = vector_of("old", "a text of this moment")
    holds(app, expected, {210: "a text of this moment"})


@pytest.mark.usefixtures("in_chroma")
def test_a_wrong_model_mends_nothing(command: Command) -> None:
    vectors = right()
    others = range(40, COUNT)
    vectors[list(others)] = [vector_of("other", sentence(number)) for number in others]
    app = InChroma(vectors)
    outcome = command("audit", "chroma:db", "--model", OLD, "--fix", "--yes")
    assert (outcome.code, "that is no mending" in outcome.err) == (5, True)
    holds(app, vectors)
    assert not Path(".reembed/backups").exists()


@pytest.mark.usefixtures("in_chroma")
@pytest.mark.parametrize("part", [2, pytest.param(200, marks=pytest.mark.long)])
def test_a_killed_mending_is_gone_on_with(part: int, command: Command, tmp_path: Path) -> None:
    vectors = right()
    vectors[list(WEEK)] = [vector_of("other", sentence(number)) for number in WEEK]
    InChroma(vectors)
    shutil.copytree("db", "bad")
    arguments = ["audit", "chroma:db", "--model", OLD, "--fix", "--yes"]
    code, steps = run(arguments, 0, tmp_path)
    assert (code, steps > 20) == (0, True)
    app = InChroma.__new__(InChroma)
    holds(app, right())
    chance = random.Random(part)
    for at in sorted(chance.sample(range(1, steps), min(part, steps - 1))):
        shutil.rmtree("db")
        shutil.rmtree(".reembed", ignore_errors=True)
        shutil.copytree("bad", "db")
        assert run(arguments, at, tmp_path)[0] == -9
        read = app.read()
        assert len(read) == COUNT, "no record is ever gone"
        for number in WEEK:
            vector = read[f"r{number:04d}"][2]
            ours = np.abs(vector - right()[number]).max(), np.abs(vector - vectors[number]).max()
            assert min(ours) < 1e-4, "a vector is the old one or the new one"
        assert command(*arguments).code == 0
        holds(app, right())


@pytest.mark.usefixtures("in_chroma")
class TestKinds:
    def test_stale_vectors(self, command: Command) -> None:
        vectors = right()
        rows = [3, 50, 51, 200, 377]
        for row in rows:
            vectors[row] = vector_of("old", sentence(9_000 + row))
        InChroma(vectors)
        outcome = command("audit", "chroma:db", "--model", OLD, "--json")
        assert outcome.code == 4
        assert outcome.json["named"] == {f"r{row:04d}": "stale" for row in rows}

    def test_vectors_in_another_order(self, command: Command) -> None:
        vectors = right()
        vectors[100:110] = np.roll(vectors[100:110], 1, axis=0)
        InChroma(vectors)
        outcome = command("audit", "chroma:db", "--model", OLD, "--json")
        assert outcome.json["named"] == {f"r{row:04d}": "other_text" for row in range(100, 110)}

    def test_a_text_with_its_title(self, command: Command) -> None:
        vectors = right()
        rows = range(0, 60)
        for row in rows:
            vectors[row] = vector_of("old", f"{title(row)}\n{sentence(row)}")
        InChroma(vectors)
        outcome = command("audit", "chroma:db", "--model", OLD, "--json")
        assert outcome.json["named"] == {f"r{row:04d}": "format" for row in rows}
        assert "title" in finding(outcome.json, "format")["message"]

    def test_all_with_their_titles(self, command: Command) -> None:
        made = [vector_of("old", f"{title(row)}\n{sentence(row)}") for row in range(COUNT)]
        made[5] = vector_of("other", sentence(5))
        InChroma(np.stack(made))
        outcome = command("audit", "chroma:db", "--model", OLD, "--json")
        assert outcome.code == 4
        text = finding(outcome.json, "text")
        assert not text["bad"]
        assert list(outcome.json["named"]) == ["r0005"]
        # What the hint says.
        assert '--text "{metadata.title}' in text["hint"]
        template = json.loads(text["hint"].partition("--text ")[2].rstrip("."))
        again = command("audit", "chroma:db", "--model", OLD, "--text", template, "--json")
        assert list(again.json["named"]) == ["r0005"]
        assert not [one for one in again.json["findings"] if one["kind"] == "text"]

    def test_a_drifted_model(self, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
        InChroma(right())
        monkeypatch.setenv("REEMBED_TEST_SHIFT", "3")
        outcome = command("audit", "chroma:db", "--model", OLD, "--json")
        assert outcome.code == 4
        assert finding(outcome.json, "drift")["bad"]
        assert not outcome.json["named"]

    def test_another_model(self, command: Command) -> None:
        InChroma(right())
        outcome = command("audit", "chroma:db", "--model", "python:counting_model:other")
        assert outcome.code == 4
        assert "made none of these vectors" in outcome.out

    def test_broken_vectors(self, command: Command) -> None:
        vectors = right()
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors[7] = 0
        vectors[9] *= 5
        vectors[20] = vectors[21]
        InChroma(vectors)
        outcome = command("audit", "chroma:db", "--model", OLD, "--json")
        assert outcome.json["named"] == {
            "r0007": "zero", "r0009": "lengths", "r0020": "other_text",
        }  # fmt: skip
        assert finding(outcome.json, "same_vector")["records"] == 2

    def test_a_report(self, command: Command) -> None:
        vectors = right()
        vectors[7] = 0
        InChroma(vectors)
        assert command("audit", "chroma:db", "--model", OLD, "-o", "audit.md").code == 4
        written = Path("audit.md").read_text()
        assert written.startswith("# Audit of docs: 400 records")
        assert "| zero | 1 | 1 |" in written


@pytest.mark.usefixtures("in_chroma")
@follows_hint("Cap its tokens: --max-tokens.")
def test_a_model_without_a_price_is_capped_by_its_tokens(command: Command) -> None:
    InChroma(right())
    refused = command("audit", "chroma:db", "--model", OLD, "--max-cost", "1")
    assert (refused.code, "--max-tokens" in refused.err) == (5, True)
    assert command("audit", "chroma:db", "--model", OLD, "--max-tokens", "100000").code == 0


@pytest.mark.usefixtures("in_chroma")
def test_the_best_of_several_models_is_taken(command: Command) -> None:
    InChroma(right())
    other = "python:counting_model:other"
    outcome = command("audit", "chroma:db", "--model", other, "--model", OLD, "--json")
    assert (outcome.code, outcome.json["model"]) == (0, "python counting_model:old")


@pytest.mark.usefixtures("in_chroma")
@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("chroma:nowhere",), 5, "no Chroma database here"),
        (("chroma:db", "--model", "old"), 2, "PROVIDER:NAME"),
        (("chroma:db", "--model", "python:counting_model:new"), 2, "the vectors have 48"),
        (("chroma:db", "--model", '{"provider": "python"}'), 2, "these are not the keys"),
        (("chroma:db", "--model", OLD, "--text", "{what}"), 2, "unknown field"),
        (("chroma:db", "--model", OLD, "--sample", "0"), 2, "too few"),
        (("chroma:db", "--model", OLD, "--max-cost", "1"), 5, "no price is known"),
        (("chroma:db", "--model", OLD, "--max-tokens", "20"), 5, "max_tokens_total"),
        (("chroma:db", "--collection", "doc"), 5, "docs"),
    ],
)
def test_what_cannot_be_audited_is_refused(
    command: Command, arguments: tuple[str, ...], code: int, told: str
) -> None:
    InChroma(right())
    outcome = command("audit", *arguments)
    assert outcome.code == code, outcome.err
    assert told in outcome.err
