"""`reembed try`: from a store's URL to both models' answers and a manifest that runs as it is."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from reembed.stages.estimate import TIMED_TEXTS
from tests.support.chroma_data import chroma, names_in, plain_collection, records_of
from tests.support.commands import Calls, Command
from tests.support.texts import CASES, sentence

NEW, OLD = "python:counting_model:new", "python:counting_model:old"


@pytest.fixture
def here(tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(CASES / "counting_model.py", tmp_path)
    monkeypatch.chdir(tmp_path)
    return database


def test_from_a_url_to_a_verdict_by_what_is_printed(
    here: Path, command: Command, calls: Calls
) -> None:
    before = names_in(f"chroma:{here}")
    tried = command(
        "try", "chroma:db", "--model", NEW, "--old-model", OLD, "--sample", "30",
        "--ask", f"{sentence(0)} again", "--json",
    )  # fmt: skip
    assert tried.code == 0, tried.err
    assert names_in(f"chroma:{here}") == before
    document = tried.json
    (question,) = document["questions"]
    assert question["old"][0]["text"][:8] == question["new"][0]["text"][:8] == sentence(0)[:8]
    assert [document["sampled"], document["plan"]["records"]] == [30, 40]
    assert document["plan"]["ok"]

    assert calls.repeated("new", 40) == 0
    step, *_ = document["steps"]
    run = command(*step["command"].split()[1:], "--until", "embed", "--json")
    assert run.code == 0, run.err
    assert calls.repeated("new", 40) <= TIMED_TEXTS - 30, "what was sampled is paid for once"
    assert command(*step["command"].split()[1:]).code == 0
    assert command("swap", document["manifest"], "--yes").code == 0
    with chroma(here) as client:
        assert len(records_of(client.get_collection("docs", embedding_function=None))) == 40


def test_questions_are_made_where_none_is_asked(here: Path, command: Command) -> None:
    shown = command("try", "chroma:db", "--model", NEW, "--old-model", OLD)
    assert shown.code == 0
    assert shown.out.count("? ") >= 5
    assert "today" in shown.out
    assert "with the new model" in shown.out
    assert "nothing blocks it" in shown.out
    assert "next: reembed run migrate-docs-to-python-counting_model-new.yaml" in shown.out
    once_more = command("try", "chroma:db", "--model", NEW, "--old-model", OLD, "--ask", "a b")
    assert once_more.code == 0, "the same manifest"
    other = command("try", "chroma:db", "--model", NEW)
    assert (other.code, "Choose another name with -o" in other.err) == (2, True)
    assert command("try", "chroma:db", "--model", NEW, "-o", "other.yaml").code == 0


def test_an_old_model_that_cannot_be_asked_is_told_once(here: Path, command: Command) -> None:
    shown = command("try", "chroma:db", "--model", NEW)
    assert shown.code == 0
    assert shown.out.count("--old-model") == 1
    assert "today" not in shown.out.split("plan of")[0].replace("today's answers", "")


def test_what_stands_in_the_way_is_told_with_the_answers(here: Path, command: Command) -> None:
    with chroma(here) as client:
        docs = client.get_collection("docs", embedding_function=None)
        docs.add(ids=["mute"], embeddings=np.ones((1, 48), np.float32))
    shown = command("try", "chroma:db", "--model", NEW, "--old-model", OLD, "--json")
    assert shown.code == 5
    assert shown.json["left_out"] == 1
    assert len(shown.json["questions"]) == 5
    assert "will be quarantined" in shown.json["plan"]["blockers"][0]["message"]
    assert "reembed plan" in shown.json["steps"][0]["command"]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("chroma:nowhere", "--model", NEW), 5, "no Chroma database here"),
        (("chroma:db", "--model", "counting"), 2, "PROVIDER:NAME"),
        (("chroma:db", "--model", NEW, "--sample", "1"), 2, "too few"),
        (("chroma:db", "--model", NEW, "--collection", "doc"), 5, "docs"),
        (("chroma:db",), 2, "--model"),
        (("chroma:db", "--model", NEW, "-o", "nowhere/m.yaml"), 2, "there is no such folder"),
        (("chroma:db", "--model", NEW, "-o", "db"), 5, "Move away what is in its place"),
    ],
)
def test_what_cannot_be_tried_is_refused_and_nothing_written(
    here: Path, command: Command, arguments: tuple[str, ...], code: int, told: str
) -> None:
    outcome = command("try", *arguments)
    assert outcome.code == code
    assert told in outcome.err
    assert not list(Path().glob("*.yaml"))


def test_several_collections_are_named(here: Path, command: Command) -> None:
    with chroma(here) as client:
        plain_collection(client, "other", count=3)
    outcome = command("try", "chroma:db", "--model", NEW)
    assert outcome.code == 2
    assert "`--collection docs` (40 records" in outcome.err
