"""What the command line and the backups say to do is done, word by word, and the command goes on.

A row has the command that is refused, the words of its hint, and what a reader does then: the same
command as the hint wants it, or something before it.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from reembed.commands import watch as watching
from reembed.commands.watch import watch_every
from tests.support.chroma_data import chroma, plain_collection
from tests.support.commands import Command
from tests.support.following import follows_hint
from tests.support.manifests import manifest_data, write_manifest
from tests.support.texts import sentence

Step = str | Callable[[], object]
Row = tuple[str, pytest.MarkDecorator, tuple[Step, ...]]

FOUND = 4
"""Exit code of a watch that finds something."""


def changed(file: str, **changes: Any) -> Callable[[], object]:
    """A step that writes a manifest again."""

    def write() -> None:
        Path(file).write_text(yaml.safe_dump(manifest_data("chroma:db", **changes)))

    return write


def text(file: str, words: str) -> Callable[[], object]:
    """A step that writes a file."""
    return lambda: Path(file).write_text(words)


def made(folder: str) -> Callable[[], object]:
    """A step that makes a folder."""
    return Path(folder).mkdir


QRELS = "query-id\tcorpus-id\tscore\nq1\t{}\t1\n"
JUDGED = {"verify__queries": "q.jsonl", "verify__qrels": "q.tsv"}
OTHER = {"model": {"provider": "python", "name": "counting_model:other"}}
COMPARED = "compare m.yaml n.yaml"
TRIED = "try chroma:db --collection docs --model python:counting_model:new --sample 30"

COMMANDS: list[Row] = [
    ("init chroma:db --collection docs -o m.yaml",
     follows_hint("Choose another name with -o.", where="cli/app.py"),
     ("init chroma:db --collection docs -o third.yaml",)),
    ("init chroma:db --collection docs -o sub/m.yaml",
     follows_hint("Make it first.", where="cli/app.py"),
     (made("sub"), "init chroma:db --collection docs -o sub/m.yaml")),
    ("init chroma:empty", follows_hint("Check the path or the database."),
     ("init chroma:db --collection docs",)),
    ("init chroma:db", follows_hint("Choose one of them: ", where="commands/discover.py"),
     ("init chroma:db --collection notes",)),
    ("try chroma:db --model python:counting_model:new",
     follows_hint("`--collection ", where="commands/discover.py"), (TRIED,)),
    ("try chroma:db --collection docs --model statik:wordllama",
     follows_hint(" Did you mean `--model ", where="commands/discover.py"),
     ("try chroma:db --collection docs --model static:wordllama",)),
    ("try chroma:db --collection docs",
     follows_hint(" --help`.", where="cli/entry.py"),
     ("try --help", "try chroma:db --collection docs --model static:wordllama")),
    ("plan .", follows_hint("Name the manifest's file, and give this user the right to read it."),
     ("plan m.yaml",)),
    ("plan db/chroma.sqlite3", follows_hint("else name the right file."), ("plan m.yaml",)),
    ("plan m.yaml --log-file logs/a.log", follows_hint("Make its folder first, or "),
     (made("logs"), "plan m.yaml --log-file logs/a.log")),
    ("init chroma:db --collection docs --model counting", follows_hint("PROVIDER is one of "),
     ("init chroma:db --collection docs --model python:counting_model:new",)),
    ("run m.yaml --until exported", follows_hint("One of "), ("run m.yaml --until export",)),
    ("report m.yaml --json --markdown", follows_hint("Choose one.", where="cli/app.py"),
     ("run m.yaml", "report m.yaml --markdown")),
    ("plann m.yaml", follows_hint(" --help`.", where="cli/entry.py"), ("--help", "plan m.yaml")),
    ("compare m.yaml", follows_hint("Write one for each candidate model."),
     ("compare m.yaml other.yaml",)),
    (COMPARED, follows_hint("Models are compared on the records of one source."),
     (changed("n.yaml", name="n", **OTHER), COMPARED)),
    ("compare kept.yaml other.yaml", follows_hint("Give it the candidate model."),
     (changed("kept.yaml", name="kept"), "compare kept.yaml other.yaml")),
    ("compare judged.yaml other.yaml", follows_hint("Check that verify.qrels uses the ids of this"),
     (text("q.tsv", QRELS.format("r3")), "compare judged.yaml other.yaml")),
    (f"{TRIED} -o sub/m.yaml", follows_hint("Make it first.", where="commands/trial.py"),
     (made("sub"), lambda: shutil.copy("counting_model.py", "sub"), f"{TRIED} -o sub/m.yaml")),
    (f"{TRIED} -o m.yaml", follows_hint("Choose another name with -o.", where="commands/trial.py"),
     (f"{TRIED} -o third.yaml",)),
    (TRIED.replace("30", "2"), follows_hint("At least "), (TRIED,)),
    ("watch m.yaml --json --markdown", follows_hint("Choose one.", where="cli/watching.py"),
     ("watch m.yaml --markdown",)),
    ("watch m.yaml --every 5m --accept new", follows_hint("Leave --every out."),
     ("watch m.yaml --accept new",)),
    ("watch m.yaml --every never",
     follows_hint("For example --every 5m."),
     ("watch m.yaml --every 5m",)),
    ("watch m.yaml --listen 127.0.0.1:0",
     follows_hint("Give it with --every, for example --every 5m."),
     ("watch m.yaml --listen 127.0.0.1:0 --every 5m",)),
    ("watch m.yaml --listen 127.0.0.1:no --every 5m",
     follows_hint("Give --listen a HOST:PORT that is free."),
     ("watch m.yaml --listen 127.0.0.1:0 --every 5m",)),
    ("watch m.yaml --by ''", follows_hint("See `reembed watch --help`."),
     ("watch --help", "watch m.yaml --by title")),
    ("watch chroma:db --collection docs --model python:counting_model:other",
     follows_hint("Say with --model which model made these vectors."),
     ("watch chroma:db --collection docs --model python:counting_model:old",)),
    ("run m.yaml --rebuild", follows_hint("Leave it out, or set mode: "), ("run m.yaml",)),
    ("watch m.yaml --model python:counting_model:old",
     follows_hint("A manifest says both: source.collection and model."), ("watch m.yaml",)),
    ("status nowhere.yaml", follows_hint("Write one with `reembed init URL -o FILE`."),
     ("init chroma:db --collection docs -o nowhere.yaml", "status nowhere.yaml")),
    ("clean chroma:db", follows_hint("To clean up after a run of your own, name its manifest"),
     ("run m.yaml", "clean m.yaml --yes")),
]  # fmt: skip

BACKUPS: list[Row] = [
    ("backup chroma:db --collection docs --all -o s",
     follows_hint("Choose one.", where="backup/commands.py"),
     ("backup chroma:db --all -o s", "check s")),
    ("backup chroma:db --collection docs", follows_hint("Say so with -o DIR."),
     ("backup chroma:db --collection docs -o s", "check s")),
    ("backup chroma:db -o s", follows_hint("Choose with --collection, or take --all: "),
     ("backup chroma:db --all -o s", "backup chroma:db --collection docs -o s")),
    ("backup chroma:empty -o s", follows_hint("Name the one that you mean with --collection."),
     ("backup chroma:db --collection docs -o s",)),
    ("backup chroma:empty --all -o s",
     follows_hint("If it should hold some, somebody deleted them or it is another database."),
     ("backup chroma:db --all -o s",)),
    ("backup chroma:db --collection docs -o s --accept-drop ''",
     follows_hint("For example --accept-drop"),
     ("backup chroma:db --collection docs -o s --accept-drop old",)),
    ("backup chroma:twin --collection docs -o snaps",
     follows_hint("Give another directory with -o. Where the store only has another address"),
     ("backup chroma:twin --collection docs -o snaps-of-twin",)),
    ("check s", follows_hint("Give the directory that `reembed backup -o` wrote to"),
     ("check snaps",)),
    ("check snaps --collection doc", follows_hint("It has those of "),
     ("check snaps --collection docs",)),
    ("check snaps --slice 9/3", follows_hint("For example 3/7, on the third night."),
     ("check snaps --slice 3/7",)),
    ("check snaps --snapshot {docs} --slice 1/2",
     follows_hint("Choose one.", where="cli/backups.py"),
     ("check snaps --slice 1/2",)),
    ("check snaps --snapshot 000007-nothing", follows_hint("`reembed snapshots "),
     ("snapshots snaps", "check snaps --snapshot {docs}")),
    ("restore snaps", follows_hint("Choose with --collection: ", where="backup/directory.py"),
     ("restore snaps --collection docs",)),
    ("restore snaps --collection docs --snapshot 000007-nothing", follows_hint("Good ones: "),
     ("restore snaps --collection docs --snapshot {docs}",)),
    ("drill snaps --snapshot {docs}",
     follows_hint("Choose with --collection whose snapshot it is."),
     ("drill snaps --collection docs --snapshot {docs}",)),
    ("prune snaps --keep 0 --yes", follows_hint("The newest good snapshot always stays."),
     ("prune snaps --keep 1 --yes", "check snaps")),
    ("restore snaps --collection docs --back --yes",
     follows_hint("So there is no way back to go."),
     ("restore snaps --collection docs --yes", "restore snaps --collection docs --back --yes")),
]  # fmt: skip


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two collections, manifests for one of them, and a database with nothing in it."""
    folder = tmp_path_factory.mktemp("commands")
    with chroma(folder / "db") as client:
        plain_collection(client, "docs", 120)
        plain_collection(client, "notes", 6)
    shutil.copytree(folder / "db", folder / "twin")
    with chroma(folder / "empty"):
        pass
    write_manifest(folder, "chroma:db")
    write_manifest(folder, "chroma:db", "n.yaml", name="n", source__collection="notes")
    write_manifest(folder, "chroma:db", "other.yaml", name="other", **OTHER)
    write_manifest(folder, "chroma:db", "kept.yaml", name="kept", model="keep")
    write_manifest(folder, "chroma:db", "judged.yaml", name="j", **JUDGED)
    lines = b"\n".join(orjson.dumps({"_id": f"q{n}", "text": sentence(n)}) for n in range(9))
    (folder / "q.jsonl").write_bytes(lines)
    (folder / "q.tsv").write_text(QRELS.format("doc-1"))
    return folder


@pytest.fixture
def scene(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(watching, "watch_every", look_once)
    return tmp_path


def look_once(seconds: float, subject: Any, told: Callable[[Any], None]) -> None:
    """A watch that somebody ends after the first look."""
    stop = threading.Event()

    def once(result: Any) -> None:
        told(result)
        stop.set()

    watch_every(seconds, subject, once, stop)


def words(line: str, **filled: str) -> list[str]:
    return [part.strip("'") for part in line.format(**filled).split(" ")]


def follow(command: Command, row: Row, **filled: str) -> None:
    """Be refused, read the hint, and do what it says."""
    wrong, mark, steps = row
    refused = command(*words(wrong, **filled), "--json")
    said = refused.out + refused.err
    assert refused.code in (2, 4, 5), said
    assert mark.args[0] in said.replace('\\"', '"'), said
    for step in steps:
        if isinstance(step, str):
            done = command(*words(step, **filled))
            assert done.code == 0 or (step.startswith("watch") and done.code == FOUND), done
        else:
            step()


@pytest.mark.parametrize("row", [pytest.param(row, marks=row[1], id=row[0]) for row in COMMANDS])
def test_a_command_that_is_refused_says_how_it_is_meant(
    row: Row, scene: Path, command: Command
) -> None:
    follow(command, row)


@pytest.mark.parametrize("row", [pytest.param(row, marks=row[1], id=row[0]) for row in BACKUPS])
def test_a_command_on_backups_that_is_refused_says_how_it_is_meant(
    row: Row, scene: Path, command: Command
) -> None:
    assert command("backup", "chroma:db", "--all", "-o", "snaps").code == 0
    (docs,) = (scene / "snaps").glob("docs*/snapshots/*")
    follow(command, row, docs=docs.name)
