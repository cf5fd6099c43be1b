"""What stands in the way of a backup or a restore says what to do, and then the command goes on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from reembed.backup import drop, restored, restores
from reembed.backup.folder import Folder
from reembed.stores.collection import Collection
from tests.support.chroma_data import chroma, plain_collection
from tests.support.commands import Command
from tests.support.following import follows_hint
from tests.support.texts import sentence, vector_of

Step = str | Callable[[], object]
Row = tuple[str, tuple[Step, ...], str, pytest.MarkDecorator, tuple[Step, ...]]
AGAIN = "backup chroma:db --collection docs -o snaps"
RESTORE = "restore snaps --yes"
HELD = ExitStack()


def folder() -> Path:
    (found,) = Path("snaps").glob("docs*")
    return found


def gone() -> None:
    with chroma(Path("db")) as client:
        client.delete_collection("docs")


def wider() -> None:
    """The application has moved to a model of other dimensions."""
    gone()
    with chroma(Path("db")) as client:
        docs = client.create_collection("docs", embedding_function=None)
        docs.add(ids=["a"], documents=["a"], embeddings=[vector_of("new", "a")])


def more() -> None:
    with chroma(Path("db")) as client:
        docs = client.get_collection("docs", embedding_function=None)
        docs.add(ids=["more"], documents=[sentence(99)], embeddings=[vector_of("old", "x")])


def damaged() -> None:
    """A shard that the newest snapshot alone needs."""
    newest = max((folder() / "shards").glob("*.parquet"), key=lambda path: path.stat().st_mtime_ns)
    newest.chmod(0o600)
    newest.write_bytes(b"x" * newest.stat().st_size)


def pruned_at_work() -> None:
    HELD.enter_context(Folder(folder()).reading(alone=True))


def misplaced() -> None:
    (folder() / "rejected").mkdir(exist_ok=True)
    for path in (folder() / "snapshots").iterdir():
        shutil.move(path, folder() / "rejected")


def put_back() -> None:
    for path in (folder() / "rejected").iterdir():
        shutil.move(path, folder() / "snapshots")


def no_snapshot() -> None:
    shutil.rmtree(folder() / "snapshots")
    (folder() / "snapshots").mkdir()


def during_read(harm: Callable[[], object]) -> Step:
    """What befalls the collection after the first page was read, once."""
    fetch_page = Collection.fetch_page

    def step() -> None:
        patch = HELD.enter_context(pytest.MonkeyPatch.context())

        def fetched(self: Collection, *given: Any, **more: Any) -> Any:
            page = fetch_page(self, *given, **more)
            patch.undo()
            harm()
            return page

        patch.setattr(Collection, "fetch_page", fetched)

    return step


def anew() -> None:
    gone()
    with chroma(Path("db")) as client:
        plain_collection(client)


def during(place: Any, name: str, act: Callable[[], object]) -> Step:
    """What somebody does just before our process calls a function, once."""

    def step() -> None:
        patch, function = HELD.enter_context(pytest.MonkeyPatch.context()), getattr(place, name)

        def called(*given: Any, **more: Any) -> Any:
            patch.undo()
            act()
            return function(*given, **more)

        patch.setattr(place, name, called)

    return step


def lost(name: str, keep: int) -> Callable[[], None]:
    """Somebody deletes all records but these few."""

    def delete() -> None:
        with chroma(Path("db")) as client:
            docs = client.get_collection(name, embedding_function=None)
            docs.delete(ids=docs.get(include=[])["ids"][keep:])

    return delete


def delete_restored() -> None:
    with chroma(Path("db")) as client:
        client.delete_collection("docs__restored-000001")


def shared() -> None:
    """Every record gets a key that many others have the value of."""
    with chroma(Path("db")) as client:
        docs = client.get_collection("docs", embedding_function=None)
        docs.update(ids=docs.get(include=[])["ids"], metadatas=[{"tenant": "a"}] * docs.count())


def few_values() -> None:
    HELD.enter_context(pytest.MonkeyPatch.context()).setattr(drop, "MOST_VALUES", 30)


ROWS: list[Row] = [
    ("inside another's", (), f"{AGAIN}/docs", follows_hint("Name the directory around that one: "),
     (AGAIN, "check snaps")),
    ("wiped while it is restored", (more, during(restored, "_carry", lost("docs", 2))), RESTORE,
     follows_hint("Nothing was moved. See who does that, and run the same command again."),
     (RESTORE,)),
    ("not as it was", (during(restores, "compare", lost("docs__restored-000001", 9)),), RESTORE,
     follows_hint("was not touched. Delete "), (delete_restored, RESTORE)),
    ("too many values", (few_values,), f"{AGAIN} --by title",
     follows_hint("Choose a key that many records share, such as a user or a tenant."),
     (shared, f"{AGAIN} --by tenant")),
    ("damaged", (more, AGAIN, damaged), RESTORE,
     follows_hint("Use another snapshot (`reembed check` says which"),
     (f"{RESTORE} --snapshot {{first}}",)),
    ("none", (no_snapshot,), RESTORE, follows_hint("Take one with `reembed backup`."),
     (AGAIN, RESTORE)),
    ("no vectors", (f"{AGAIN} --without-vectors",), RESTORE,
     follows_hint("Choose a snapshot that has them."), (f"{RESTORE} --snapshot {{first}}",)),
    ("other dimensions", (wider,), RESTORE,
     follows_hint("--exact restores the snapshot alone. The collection of now is kept"),
     (f"{RESTORE} --exact", "restore snaps --back --yes --accept-loss")),
    ("no way back", ("restore snaps",), "restore snaps --back --yes",
     follows_hint("`reembed restore DIR --yes` gives it one."), (RESTORE,)),
    ("nothing before", (more, AGAIN, gone, RESTORE), "restore snaps --back --yes",
     follows_hint("Earlier snapshots can be restored with --snapshot ID."),
     (f"{RESTORE} --snapshot {{first}} --exact",)),
    ("a prune", (pruned_at_work,), "check snaps",
     follows_hint("Wait until it ends, and try again.", where="backup/folder.py"),
     (HELD.close, "check snaps")),
    ("misplaced", (misplaced,), f"{RESTORE} --snapshot {{first}}",
     follows_hint("Move it out of "), (put_back, "check snaps", RESTORE)),
    ("deleted while it is read", (during_read(gone),), AGAIN,
     follows_hint("No snapshot was written, and the good ones are as they were. Look at the"),
     (RESTORE, AGAIN)),
    ("replaced while it is read", (during_read(anew),), AGAIN,
     follows_hint("If a swap was under way, run the same command again; if not, look"), (AGAIN,)),
    ("gone", (gone,), AGAIN, follows_hint("If that was meant, nothing is to be done."),
     (RESTORE, AGAIN)),
]  # fmt: skip


@pytest.mark.parametrize("row", [pytest.param(row, marks=row[3], id=row[0]) for row in ROWS])
def test_what_is_in_the_way_says_what_to_do(
    row: Row, tmp_path: Path, database: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, before, stopped, _, onward = row
    monkeypatch.chdir(tmp_path)
    assert command(*AGAIN.split()).code == 0
    (first,) = folder().glob("snapshots/*")

    def do(steps: tuple[Step, ...]) -> None:
        command.take(one.format(first=first.name) if isinstance(one, str) else one for one in steps)

    do(before)
    refused = command(*stopped.format(first=first.name).split(), "--json")
    assert refused.code in (2, 4, 5, 6), refused.out
    do(onward)
    HELD.close()
