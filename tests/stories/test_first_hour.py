"""Somebody who has read no page does what is printed, literally, and comes to a verdict.

A reader types the command after `next:`, and of a hint the first thing between backticks: a
command is typed, `key: value` goes into the manifest, a flag or a store's URL into the command
typed last. A place with `did you mean` is corrected there. Nothing else is known to it.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
import yaml

from reembed.stages import load
from tests.support.chroma_data import chroma
from tests.support.commands import Command, Outcome
from tests.support.following import follows_hint
from tests.support.pg_scene import written
from tests.support.texts import sentence, vector_of

MODEL = "static:wordllama"
MANIFEST = "migrate-docs-to-static-wordllama.yaml"
STEPS = 8
_CODE = re.compile(r"`([^`]+)`")
_ACTION = re.compile(r"reembed |--|\w+:\S|[\w.]+: ")
"""What can be done as it stands."""
_PLACE = re.compile(r"(\S+\.yaml):(\d+):(\d+): (.*)")


@dataclass
class Reader:
    """See the module. `free` makes room on the disk; `url` is of somebody's store."""

    command: Command
    url: str
    free: Callable[[], None] = lambda: None
    typed: list[str] = field(default_factory=list)

    @property
    def first(self) -> str:
        """What is typed first."""
        return f"reembed try {self.url} --model {MODEL}"

    def type(self, line: str) -> Outcome:
        self.typed.append(line)
        program, *words = shlex.split(line, comments=True)
        assert program == "reembed", line
        outcome = self.command(*words)
        assert "Traceback" not in outcome.out + outcome.err
        return outcome

    def until(self, outcome: Outcome, goal: str) -> Outcome:
        """Do what is printed until `goal` is."""
        for _ in range(STEPS):
            if goal in outcome.out:
                return outcome
            outcome = self.follow(outcome)
        raise AssertionError(f"{self.typed}\n{outcome.out}{outcome.err}")

    def follow(self, outcome: Outcome) -> Outcome:
        """Do what is printed."""
        told = outcome.out + outcome.err
        problem = re.search(r"^(error|blocked): .*(\n(?!\w+: ).*)*", told, re.MULTILINE)
        if problem is None:
            return self.type(_next(told))
        places = _PLACE.findall(problem[0])
        for file, line, column, text in reversed(places):
            _correct(Path(file), int(line), int(column), text)
        if places:
            return self.type(self.typed[-1])
        said = _CODE.findall(problem[0].partition("\n")[2])
        code = next((one for one in said if _ACTION.match(one)), None)
        if "Free some space" in problem[0]:
            self.free()
            return self.type(_next(told))
        if code is None:
            assert "same command again" in problem[0], problem[0]
            return self.type(self.typed[-1])
        return self.do(code, told)

    def do(self, code: str, told: str) -> Outcome:
        last = self.typed[-1]
        if code.startswith("reembed "):
            return self.type(code)
        if code.startswith("--"):
            flag = code.split()[0]
            return self.type(re.sub(rf" {flag} \S+", "", last) + f" {code}")
        if re.match(r"(chroma|postgresql):", code):
            return self.type(re.sub(r"(chroma|postgresql):\S+", code, last))
        key, _, value = code.partition(": ")
        following = _next(told) if "\nnext: " in told else last
        _set(Path(shlex.split(following)[2]), key, yaml.safe_load(value))
        return self.type(following)


def _next(told: str) -> str:
    found = re.search(r"^next: (reembed .*?)(   #.*)?$", told, re.MULTILINE)
    assert found is not None, told
    return found[1]


def _set(manifest: Path, key: str, value: Any) -> None:
    data = yaml.safe_load(manifest.read_text())
    *sections, last = key.split(".")
    place = data
    for section in sections:
        place[section] = place.get(section) or {}  # a section of comments is empty
        place = place[section]
    place[last] = value
    manifest.write_text(yaml.safe_dump(data, sort_keys=False))


def _correct(manifest: Path, line: int, column: int, text: str) -> None:
    lines = manifest.read_text().splitlines()
    meant = re.search(r"did you mean '([^']+)'\?", text)
    wrong = re.search(r"unknown key '(?:.*\.)?([^'.]+)'", text) or re.search(
        r"unknown field (\{\w+\})", text
    )
    assert meant is not None and wrong is not None, text
    before, rest = lines[line - 1][: column - 1], lines[line - 1][column - 1 :]
    lines[line - 1] = before + rest.replace(wrong[1], meant[1], 1)
    manifest.write_text("\n".join(lines) + "\n")


STORES = ["chroma", pytest.param("postgres", marks=pytest.mark.long)]


@pytest.fixture(params=STORES)
def reader(
    request: pytest.FixtureRequest, tmp_path: Path, command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> Reader:  # fmt: skip
    """A reader in a folder of somebody's, whose store holds a collection."""
    monkeypatch.chdir(tmp_path)
    chosen = request.param == "postgres"
    url = request.getfixturevalue("postgres_url") if chosen else "chroma:./db"
    records(url, "docs", 40)
    return Reader(command, url)


def records(url: str, name: str, count: int, long: int = 0, blank: int = 0) -> None:
    """A collection; so many of the records have long texts, or none."""
    texts = [sentence(number) * (200 if number < long else 1) for number in range(count)]
    texts[len(texts) - blank :] = [""] * blank
    vectors = [vector_of("old", text or "blank") for text in texts]
    titles = [f"title {number}" for number in range(count)]
    if url.startswith("postgresql:"):
        columns = "id bigserial PRIMARY KEY, title text, content text, embedding vector(48)"
        rows = [
            (title, text, written(vector))
            for title, text, vector in zip(titles, texts, vectors, strict=True)
        ]
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"CREATE TABLE {name} ({columns})".encode())
            connection.cursor().executemany(
                f"INSERT INTO {name} (title, content, embedding) VALUES (%s, %s, %s)".encode(), rows
            )
        return
    with chroma(Path(url.removeprefix("chroma:"))) as client:
        made = client.create_collection(name, embedding_function=None)
        if count:
            made.add(
                ids=[f"r{number}" for number in range(count)], documents=texts,
                metadatas=[{"title": title} for title in titles], embeddings=vectors,
            )  # fmt: skip


def changed(**changes: Any) -> None:
    for key, value in changes.items():
        _set(Path(MANIFEST), key.replace("__", "."), value)


def judged(reader: Reader, outcome: Outcome) -> None:
    reader.until(outcome, "verdict: safe to swap")


def test_from_a_folder_to_a_verdict_and_back(reader: Reader) -> None:
    outcome = reader.until(reader.type(reader.first), "verdict: safe to swap")
    outcome = reader.until(outcome, "now serves")
    assert "the application has to embed its queries with static wordllama" in outcome.out
    outcome = reader.type(_next(outcome.out))
    assert "now serves docs__parked" in outcome.out
    assert len(reader.typed) <= 5
    assert [line.split()[1] for line in reader.typed] == ["try", "run", "swap", "rollback"]


@pytest.mark.parametrize("reader", ["chroma"], indirect=True)
@follows_hint("Did you mean `chroma:", where="stores/chroma/sqlite.py")
def test_a_wrong_path(reader: Reader) -> None:
    Path("bd").mkdir()
    Path("bd/chroma.sqlite3").touch()  # as opening a wrong path with SQLite leaves it
    judged(reader, reader.type(reader.first.replace("./db", "./bd")))
    assert len(reader.typed) == 3


@follows_hint("Not empty here: `--collection ")
def test_an_empty_collection(reader: Reader) -> None:
    records(reader.url, "notes", 0)
    judged(reader, reader.type(f"{reader.first} --collection notes"))


@pytest.mark.parametrize("reader", ["postgres"], indirect=True)
@follows_hint(" Did you mean `", where="stores/postgres/refused.py")
def test_a_wrong_database(reader: Reader) -> None:
    name = re.search(r"test_\d+_\d+", reader.url)
    assert name is not None
    judged(reader, reader.type(reader.first.replace(name[0], f"{name[0]}x")))
    assert len(reader.typed) == 3


@pytest.mark.parametrize("reader", ["chroma"], indirect=True)
@follows_hint("Check the URL: no collection of this store holds a record")
def test_a_store_without_a_record(reader: Reader) -> None:
    records("chroma:./old", "docs", 0)
    refused = reader.type(reader.first.replace("./db", "./old"))
    assert refused.code == 5 and "Check the URL" in refused.err
    assert reader.type(reader.first).code == 0


@pytest.mark.long
@follows_hint(
    "If it should hold records, the application may be writing elsewhere",
    where="stages/refusals.py",
)
@follows_hint(" Not empty here: ", where="stages/refusals.py")
def test_an_empty_collection_in_a_manifest(reader: Reader) -> None:
    records(reader.url, "notes", 0)
    reader.type(f"{reader.first} --collection docs")
    changed(source__collection="notes")
    judged(reader, reader.type(f"reembed run {MANIFEST}"))


def test_wrong_keys(reader: Reader) -> None:
    reader.type(reader.first)
    text = Path(MANIFEST).read_text().replace("provider:", "providr:")
    text = text.replace("\nverify:\n", "\nverfy:\n  sample: 100\n")
    Path(MANIFEST).write_text(text.replace("\nswap:\n", "\nswap:\n  keep_odl: 1d\n"))
    judged(reader, reader.type(f"reembed run {MANIFEST}"))
    assert len(reader.typed) == 3, "all were told at once"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("{metadata.titel}: {document}",
                     marks=follows_hint("? `text: '")),
        pytest.param("{documnt}"),
    ],
)  # fmt: skip
def test_a_typo_in_the_template(reader: Reader, text: str) -> None:
    reader.type(reader.first)
    changed(text=text)
    judged(reader, reader.type(f"reembed run {MANIFEST}"))


@follows_hint("; the next to it: `model.dimensions: ")
def test_dimensions_that_the_model_does_not_have(reader: Reader) -> None:
    reader.type(reader.first)
    changed(model__dimensions=100)
    judged(reader, reader.type(f"reembed run {MANIFEST}"))


@pytest.mark.parametrize("limit", [{"model__max_tokens": 64}, {}])
def test_long_texts_and_records_without_text(reader: Reader, limit: dict[str, int]) -> None:
    records(reader.url, "more", 60, long=6 if limit else 0, blank=0 if limit else 3)
    outcome = reader.type(f"{reader.first} --collection more -o {MANIFEST}")
    if limit:
        changed(**limit)
        outcome = reader.type(f"reembed plan {MANIFEST}")
    judged(reader, outcome)


def test_a_changed_mind(reader: Reader) -> None:
    reader.until(reader.type(reader.first), "verdict: safe to swap")
    changed(model__dimensions=128)
    judged(reader, reader.type(f"reembed run {MANIFEST}"))
    assert "--restart" in reader.typed[-1]


@follows_hint("choose another target.collection, `target.collection: ")
def test_a_second_run_beside_the_first(reader: Reader) -> None:
    reader.until(reader.type(reader.first), "verdict: safe to swap")
    changed(name="another")
    judged(reader, reader.type(f"reembed run {MANIFEST}"))


@pytest.mark.long
@follows_hint("Choose another name, `target.collection: ")
def test_a_target_that_is_there(reader: Reader) -> None:
    reader.type(reader.first)
    records(reader.url, "taken", 3)
    changed(target__collection="taken")
    judged(reader, reader.type(f"reembed run {MANIFEST}"))


def test_an_interruption(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    reader.type(reader.first)
    with monkeypatch.context() as patch:
        patch.setattr(load, "load_shard", _interrupt)
        outcome = reader.type(f"reembed run {MANIFEST}")
    assert outcome.code == 130
    judged(reader, outcome)


def _interrupt(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def test_a_full_disk(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=9, used=9, free=9))
        reader.free = patch.undo
        judged(reader, reader.type(reader.first))


@follows_hint("`source.model: null`")
def test_a_wrong_old_model(reader: Reader) -> None:
    reader.type(reader.first)
    changed(source__model={"provider": "static", "name": "wordllama"})
    outcome = reader.type(f"reembed plan {MANIFEST}")
    warned = re.search(r"warning: this is not the old model.*\n.*", outcome.out)
    assert warned is not None
    code = _CODE.search(warned[0])
    assert code is not None
    outcome = reader.do(code[1], outcome.out)
    assert "not the old model" not in outcome.out
    judged(reader, outcome)


@pytest.mark.long
@follows_hint("set swap.keep_old lower; 0d gives up the way back now")
def test_cleaning_too_early(reader: Reader) -> None:
    outcome = reader.until(reader.type(reader.first), "now serves")
    outcome = reader.type(f"reembed clean {MANIFEST}")
    assert "with 40 records; may be done from" in " ".join(outcome.out.split())
    reader.until(outcome, "the old collection is deleted")
