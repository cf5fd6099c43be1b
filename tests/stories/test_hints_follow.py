"""What a job that follows a corpus is refused with says what to do, and then the job goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.chroma_data import chroma, plain_collection
from tests.support.commands import Command
from tests.support.following import follows_hint
from tests.support.manifests import write_manifest
from tests.support.texts import sentence, vector_of

Step = str | Callable[[], object]
Row = tuple[str, tuple[Step, ...], str, pytest.MarkDecorator, tuple[Step, ...]]
RUN = "run m.yaml --swap"
LONG = pytest.mark.long


def corpus(records: int, without_text: int = 0) -> Step:
    """The corpus holds so many records by now."""

    def write() -> None:
        texts = [sentence(n) for n in range(records)] + [""] * without_text
        lines = [json.dumps({"id": f"r{n}", "text": text}) for n, text in enumerate(texts)]
        Path("new").write_text("\n".join(lines))
        Path("new").rename("corpus.jsonl")

    return write


def settings(**changes: Any) -> Step:
    common = {
        "mode": "follow", "target__url": "chroma:db", "target__collection": "docs",
        "source__collection": "corpus", "source__model": None,
    }  # fmt: skip

    def write() -> None:
        write_manifest(Path(), "jsonl:./corpus.jsonl", **common | changes)

    return write


def ours() -> None:
    """An application has made the live collection."""
    with chroma(Path("db")) as client:
        plain_collection(client, "docs")


def foreign() -> None:
    """An application writes many records of its own."""
    texts = [sentence(900 + n) for n in range(60)]
    with chroma(Path("db")) as client:
        docs = client.get_collection("docs", embedding_function=None)
        docs.add(ids=texts, documents=texts, embeddings=[vector_of("new", text) for text in texts])


def replaced_is_damaged() -> None:
    (path,) = Path(".reembed").rglob("replaced/*.parquet")
    path.write_bytes(b"")


SAME = {"source__url": "chroma:db", "source__collection": "docs", "target__url": None}
ROWS: list[Row] = [
    ("slice", (RUN,), "verify m.yaml --slice 1/2",
     follows_hint("Leave it out.", where="migration/following/following.py"), ("verify m.yaml",)),
    ("sweep", (RUN,), "sweep m.yaml",
     follows_hint("carries what changed, and what an application wrote late."), (RUN,)),
    ("backup", (RUN,), "clean m.yaml --backup --yes",
     follows_hint("`reembed backup` takes one by itself."),
     ("backup m.yaml", "clean m.yaml --yes")),
    ("swap", ("run m.yaml --until embed",), "swap m.yaml --yes",
     follows_hint("`reembed run --swap` does all that is to be done."), (RUN,)),
    ("adopt", (ours,), RUN, follows_hint("With --adopt the job takes the name over"),
     (f"{RUN} --adopt",)),
    ("another name", (ours,), RUN, follows_hint("Or choose another target.collection."),
     (settings(target__collection="others"), RUN)),
    ("config", (settings(swap__kind="config"),), RUN,
     follows_hint("Leave swap.kind out.", where="migration/following/moving.py"),
     (settings(), RUN)),
    ("the same", (ours, settings(**SAME)), "plan m.yaml",
     follows_hint("Give the live collection a name of its own (target.collection), or"),
     (settings(**SAME | {"target__collection": "docs-new"}), "plan m.yaml")),
    ("collapsed", (RUN, corpus(3)), RUN,
     follows_hint("look at the corpus first. If they were meant to go, say so once"),
     (f"{RUN} --accept-loss",)),
    ("collapsed, and mended", (RUN, corpus(3)), RUN,
     follows_hint("An empty or collapsed corpus is not carried over a good index: look"),
     (corpus(41), RUN)),
    ("no text", (RUN, corpus(40, 2)), RUN,
     follows_hint("Nothing was written to the live collection. "),
     (settings(verify__allow_quarantined=2), RUN)),
    ("nothing to go back to", (RUN, "backup m.yaml -o snaps"), "rollback m.yaml --yes",
     follows_hint("`reembed restore` puts a backup in its place."), ("restore snaps --yes",)),
    ("others' records", (RUN, settings(follow__delete_foreign=True), foreign, corpus(41)), RUN,
     follows_hint("None of them was deleted. See who writes them; --accept-loss"),
     (f"{RUN} --accept-loss",)),
    ("few records", (RUN, corpus(200), f"{RUN} --rebuild"), "rollback m.yaml --yes",
     follows_hint("If that is meant, run it again with", where="migration/following/moving.py"),
     ("rollback m.yaml --yes --accept-loss",)),
    ("damage", (RUN, corpus(39), RUN, replaced_is_damaged), "rollback m.yaml --yes",
     follows_hint("Nothing was changed. Mend the corpus and run the job, or"),
     (corpus(40), RUN)),
]  # fmt: skip
SHORT = {"slice", "sweep", "adopt", "config", "the same"}


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, marks=[row[3]] if row[0] in SHORT else [row[3], LONG], id=row[0])
        for row in ROWS
    ],
)
def test_what_a_job_is_refused_with_says_what_to_do(
    row: Row, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, before, stopped, _, onward = row
    monkeypatch.chdir(tmp_path)
    with chroma(tmp_path / "db"):
        pass

    def do(steps: tuple[Step, ...]) -> None:
        command.take(steps, codes=(0, 3))

    do((corpus(40), settings(), *before))
    refused = command(*stopped.split(), "--json")
    assert refused.code in (2, 4, 5), refused.out
    do(onward)
