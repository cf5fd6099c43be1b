"""What a watch finds says what to do: it is done, word by word, and the next look is well.

A row has what befalls a collection that was well, the finding's hint, and what a person does then:
"`" is to type the command that the hint gives.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from reembed.backup.snapshot import DRILL
from reembed.commands.watch import notify
from reembed.stores.collection import Collection
from tests.support.chroma_data import chroma, plain_collection
from tests.support.commands import Command
from tests.support.following import follows_hint
from tests.support.manifests import manifest_data
from tests.support.servers.webhook import Webhook
from tests.support.texts import CASES, sentence, vector_of

DAY = 86_400.0
WATCH = {"backups": "snaps", "probe": False, "backup_age": "99w", "drill_age": "99w"}


@dataclass
class Scene:
    """A collection that is backed up and watched, in the working directory."""

    command: Command
    monkeypatch: pytest.MonkeyPatch
    hint: str = ""
    filled: dict[str, str] = field(default_factory=dict)

    def run(self, line: str) -> Any:
        return self.command(*shlex.split(line.format(**self.filled)))

    def manifest(self, **changes: Any) -> None:
        """Write the manifest."""
        data = manifest_data("chroma:db", watch=dict(WATCH), **changes)
        Path("m.yaml").write_text(yaml.safe_dump(data))

    def told(self, words: str) -> None:
        """Look, and keep the finding's hint that has these words."""
        done = self.run("{watch} --json")
        hints = [one["hint"] for one in done.json["findings"] if words in one["hint"]]
        assert hints, done.out
        self.hint = hints[0]

    def follow(self, step: Step) -> None:
        if not isinstance(step, str):
            step(self)
            return
        if step.startswith("`"):
            typed: list[str] = re.findall(r"`reembed ([^`]+)`", self.hint)
            assert len(typed) == 1, self.hint
            done = self.run(typed[0] + step[1:])
        else:
            done = self.run(step)
        assert done.code == 0, (step, done.out, done.err)

    def well(self) -> None:
        done = self.run("{watch} --json")
        alerts = [one for one in done.json["findings"] if one["status"] == "alert"]
        assert (done.code, alerts) == (0, [])


Step = str | Callable[[Scene], object]
Row = tuple[str, dict[str, Any], Step, pytest.MarkDecorator, tuple[Step, ...]]


def gone(scene: Scene) -> None:
    with chroma(Path("db")) as client:
        client.delete_collection("docs")


def anew(model: str = "old", space: str = "cosine", ids: str = "r") -> Step:
    """The application makes its collection again."""

    def make(scene: Scene) -> None:
        with chroma(Path("db")) as client:
            client.delete_collection("docs")
            settings: Any = {"hnsw": {"space": space}}
            docs = client.create_collection("docs", configuration=settings)
            docs.add(
                ids=[f"{ids}{number}" for number in range(40)],
                documents=[sentence(number) for number in range(40)],
                embeddings=[vector_of(model, sentence(number)) for number in range(40)],
            )  # fmt: skip

    return make


def emptied(scene: Scene) -> None:
    with chroma(Path("db")) as client:
        docs = client.get_collection("docs")
        docs.delete(ids=docs.get(include=[])["ids"])


def replaced(scene: Scene) -> None:
    with chroma(Path("db")) as client:
        docs = client.get_collection("docs", embedding_function=None)
        docs.delete(ids=docs.get(include=[])["ids"])
        texts = [sentence(900 + number) for number in range(40)]
        docs.add(ids=texts, documents=texts, embeddings=[vector_of("old", one) for one in texts])


def broken_index(scene: Scene) -> None:
    """A search in the collection that is there now finds nothing."""
    query = Collection.query
    with chroma(Path("db")) as client:
        broken = str(client.get_collection("docs").id)

    def of(self: Collection, vectors: Any, count: int, *more: Any) -> list[list[str]]:
        found = query(self, vectors, count, *more)
        return [[] for _ in found] if self.id == broken else found

    scene.monkeypatch.setattr(Collection, "query", of)


def damaged_memory(scene: Scene) -> None:
    (memory,) = Path().rglob("watch.json")
    shutil.copy(memory, "copy.json")
    memory.write_text("{")


def settings(**changes: Any) -> Step:
    return lambda scene: scene.manifest(**changes)


def later(days: float) -> Step:
    """The clock is set, by so many days from the right time."""
    return lambda scene: scene.monkeypatch.setattr(time, "time", lambda: CLOCK() + days * DAY)


CLOCK = time.time


def environment(name: str, value: str | None) -> Step:
    def change(scene: Scene) -> None:
        if value is None:
            scene.monkeypatch.delenv(name)
        else:
            scene.monkeypatch.setenv(name, value.format(**scene.filled))

    return change


def drilled(passed: bool) -> Step:
    def note(scene: Scene) -> None:
        found = {"time": CLOCK(), "passed": passed}
        for snapshot in Path("snaps").glob("*/snapshots/*"):
            (snapshot / DRILL.name).write_text(json.dumps(found))

    return note


def not_drilled(scene: Scene) -> None:
    for path in Path("snaps").rglob(DRILL.name):
        path.unlink()


def no_backup(scene: Scene) -> None:
    shutil.rmtree("snaps")


def steps(*several: Step) -> Step:
    def take(scene: Scene) -> None:
        for step in several:
            scene.follow(step)

    return take


def of_a_twin(scene: Scene) -> None:
    """Backups of a copy of the database lie where the watch looks."""
    shutil.copytree("db", "twin")
    shutil.move("snaps", "right")
    assert scene.run("backup chroma:twin --collection docs -o snaps").code == 0


def records(count: int) -> Step:
    def check(_: Scene) -> None:
        with chroma(Path("db")) as client:
            assert client.get_collection("docs").count() == count

    return check


def delivered(scene: Scene) -> None:
    assert scene.run("watch m.yaml --json").json["undelivered"] == 0


ACCEPTED = '{watch} --accept "why"'
BY_URL = {"watch": "watch chroma:db"}
SAVED = {"watch": "watch chroma:db --collection docs --backups snaps"}
NOTES = "backup chroma:db --collection notes -o snaps"
NEW = steps("`", drilled(passed=True))
MEND = {"watch__on_empty": "restore"}
PROBED = {"watch__probe": True}
TOLD = {"watch__notify_env": ["TOLD"]}
SHIFT = "REEMBED_TEST_SHIFT"

ROWS: list[Row] = [
    ("restored", {}, gone,
     follows_hint("If that was not meant, restore it", where="commands/watch/collections.py"),
     ("restore snaps --yes", records(40), ACCEPTED)),
    ("accepted", BY_URL, gone,
     follows_hint("If it was meant: give the same", where="commands/watch/collections.py"),
     (ACCEPTED,)),
    ("watched no more", {}, gone, follows_hint("If it was meant, end this watch, which names it."),
     (lambda scene: scene.filled.update(watch="watch chroma:db"),)),
    ("a drop", {}, emptied,
     follows_hint("If it was meant: give the same", where="commands/watch/collections.py"),
     (ACCEPTED,)),
    ("dimensions", {}, anew("new"),
     follows_hint("Searches with that model fail or find nothing."), (ACCEPTED,)),
    ("metric", {}, anew(space="l2"),
     follows_hint("Somebody created it again with other settings."), (ACCEPTED,)),
    ("identity", {}, anew(), follows_hint("Somebody deleted it and created it again, renamed"),
     (ACCEPTED,)),
    ("others", {}, replaced, follows_hint("Its records were replaced by others."), (ACCEPTED,)),
    ("others, every day", {}, replaced,
     follows_hint("Where that happens every day: `watch.canaries: 0`."),
     (settings(watch__canaries=0),)),
    ("another database", {"source__url": "${APP}"},
     steps(lambda scene: shutil.copytree("db", "twin"), environment("APP", "chroma:twin")),
     follows_hint("find the one with the records, and", where="commands/watch/cycle.py"),
     (environment("APP", "chroma:db"),)),
    ("the clock", {}, later(-2), follows_hint("Set the clock: ages of backups and runs"),
     (later(0),)),
    ("no backup", {}, no_backup,
     follows_hint("makes one, and says why if it is refused.", "`reembed backup "),
     (NEW, "check snaps")),
    ("a backup of another one", {}, steps(no_backup, NOTES),
     follows_hint("makes one, and says why if it is refused."), (NEW,)),
    ("no backup, by URL", SAVED, no_backup,
     follows_hint("makes one, and says why if it is refused."), (NEW,)),
    ("an old backup", {"watch__backup_age": "26h"}, later(3),
     follows_hint("makes one, and says why if it is refused."), ("`",)),
    ("a backup of tomorrow", {}, steps(later(1), "backup m.yaml -o snaps", later(0)),
     follows_hint("A clock is or was wrong: set it. Then"), ("`",)),
    ("a twin's backups", {}, of_a_twin,
     follows_hint("One of the two looks at the wrong database"),
     (settings(watch__backups="right"),)),
    ("a failed drill", {}, drilled(passed=False),
     follows_hint("tells why: until it passes, no backup", "`reembed drill "), ("`",)),
    ("no drill", {"watch__drill_age": "8d"}, steps(not_drilled, later(9)),
     follows_hint("restores one into a scratch store and asks it."), ("`",)),
    ("where the backups are", MEND | {"watch__backups": None}, gone,
     follows_hint("Say where they are: watch.backups, or --backups."),
     (settings(**MEND), lambda scene: scene.run("watch m.yaml --yes"), records(40))),
    ("a word", MEND, gone, follows_hint("The same command with --yes does it, or"),
     (lambda scene: scene.run("watch m.yaml --yes"), records(40))),
    ("unattended", MEND, gone, follows_hint("or watch.unattended: true without a person."),
     (settings(watch__unattended=True, **MEND), lambda scene: scene.run("watch m.yaml"),
      records(40))),
    ("the way back", MEND | {"watch__unattended": True},
     emptied,
     follows_hint("Find out who emptied it. The way back:"), ("` --accept-loss", records(0),
      lambda scene: scene.run("watch m.yaml --yes"), records(40))),
    ("a twin's backups, for a mending", MEND, steps(of_a_twin, gone),
     follows_hint("restores it here all the same."), ("`", records(40), ACCEPTED)),
    ("another model", PROBED, environment(SHIFT, "0.4"),
     follows_hint("bring the old model back, or move the collection"),
     (environment(SHIFT, None),)),
    ("another model that stays", PROBED, environment(SHIFT, "0.4"),
     follows_hint("or move the collection to the one that is there now"),
     (settings(name="onward", **PROBED), "run m.yaml --swap")),
    ("a broken index", {}, broken_index,
     follows_hint("`reembed run --swap` of a manifest with model: keep"),
     (settings(name="onward", model="keep"), "run m.yaml --swap")),
    ("a damaged memory", {}, lambda scene: next(Path().rglob("watch.json")).write_text("{"),
     follows_hint("The next cycle starts again, and accepts what it finds then."), ()),
    ("a damaged memory of which there is a copy", {}, damaged_memory,
     follows_hint("put the file back from it first."),
     (lambda scene: shutil.copy("copy.json", ".reembed/move/watch.json"), emptied,
      lambda scene: scene.told("If that was not meant, restore it"), ACCEPTED)),
    ("a run that stopped", {}, steps("run m.yaml --until embed", later(3)),
     follows_hint("goes on with it, and says what blocks it"), ("`",)),
    ("nobody is told", TOLD, lambda scene: None,
     follows_hint("Set the variable to an Apprise URL", where="commands/watch/notify.py"),
     (environment("TOLD", "{hook}"),)),
    ("no address", TOLD, environment("TOLD", "carrier-pigeon://coop"),
     follows_hint("https://appriseit.com lists them.", where="commands/watch/notify.py"),
     (environment("TOLD", "{hook}"),)),
    ("nobody takes it", TOLD, steps(environment("TOLD", "json://127.0.0.1:1/"), emptied),
     follows_hint("They are kept, and sent in the next cycle."),
     (environment("TOLD", "{hook}"), ACCEPTED, delivered)),
]  # fmt: skip


LONG = {"another model that stays": [pytest.mark.long], "a broken index": [pytest.mark.long]}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("watched")
    with chroma(folder / "db") as client:
        plain_collection(client)
        plain_collection(client, "notes", 12)
    shutil.copy(CASES / "counting_model.py", folder)
    return folder


@pytest.fixture
def scene(
    built: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Scene]:
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(notify, "WAIT", 0.0)
    monkeypatch.setenv("APP", "chroma:db")
    with Webhook() as hook:
        yield Scene(command, monkeypatch, filled={"hook": hook.url})


@pytest.mark.parametrize(
    "row",
    [pytest.param(row, marks=[row[3], *LONG.get(row[0], ())], id=row[0]) for row in ROWS],
)
def test_what_a_watch_finds_says_what_to_do(row: Row, scene: Scene) -> None:
    _, changes, trouble, mark, onward = row
    changes = dict(changes)
    scene.filled["watch"] = changes.pop("watch", "watch m.yaml")
    scene.manifest(**changes)
    scene.follow("backup m.yaml -o snaps")
    scene.follow(drilled(passed=True))
    if not changes.get("watch__notify_env"):
        scene.well()
    scene.follow(trouble)
    scene.told(mark.args[0])
    for step in onward:
        scene.follow(step)
    scene.well()
