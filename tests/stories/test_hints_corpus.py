"""What is said of Parquet files and JSON lines as a source is done, and the plan passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reembed.stores.corpus import store as corpus
from tests.support.chroma_data import chroma
from tests.support.commands import Command
from tests.support.following import filled, follows_hint, wrong_and_right
from tests.support.manifests import write_manifest
from tests.support.texts import sentence

TEXTS = [{"id": f"r{n}", "text": sentence(n), "key": f"k{n}"} for n in range(12)]
BARE = [{"key": row["key"], "text": row["text"]} for row in TEXTS]


@dataclass(frozen=True)
class Now:
    """How things are when a plan is made.

    Attributes:
        url: of the source; its file or folder is in {folder}.
        more: keys of the manifest that differ.
        files: name to rows, or to what is written as it stands.
    """

    url: str = "jsonl:{folder}/docs.jsonl"
    more: dict[str, Any] = field(default_factory=dict)
    files: dict[str, Any] = field(default_factory=lambda: {"docs.jsonl": TEXTS})


FINE = Now()
FOLDER = {"part/docs.jsonl": TEXTS}
ROWS: list[tuple[str, Now, pytest.MarkDecorator, Now]] = [
    ("a path with a slip", Now("jsonl:{folder}/dcs.jsonl"),
     follows_hint("A path is relative to the manifest."), FINE),
    ("a collection with a slip", Now(more={"source__collection": "dcos"}),
     follows_hint("Did you mean ", where="stores/corpus/store.py"), FINE),
    ("a collection in a folder", Now("jsonl:{folder}/part", files=FOLDER,
                                     more={"source__collection": "dcos"}),
     follows_hint(", the folder's own name, stands for all of them."), Now("jsonl:{folder}/part")),
    ("all of a folder", Now("jsonl:{folder}/part", files=FOLDER,
                            more={"source__collection": "other"}),
     follows_hint(", the folder's own name, stands for all of them."),
     Now("jsonl:{folder}/part", {"source__collection": "part"})),
    ("a filter", Now(more={"source__where": "n > 3"}),
     follows_hint("Leave it out, and write what is to be moved into a file of its own."), FINE),
    ("a column that is not there", Now(more={"source__columns": {"text": "body"}}),
     follows_hint("Name one that is there, or leave it out."),
     Now(more={"source__columns": {"text": "text"}})),
    ("a column that is left out", Now(more={"source__columns": {"text": "body"}}),
     follows_hint("Name one that is there, or leave it out."), FINE),
    ("no ids", Now(files={"docs.jsonl": BARE}),
     follows_hint("Name it with source.columns: {id: NAME}."),
     Now(files={"docs.jsonl": BARE}, more={"source__columns": {"id": "key"}})),
    ("a line that is none", Now(files={"docs.jsonl": b'{"id": "a", "text": \n'}),
     follows_hint("Mend the file; nothing of it is left out in silence"), FINE),
    ("half a file", Now("parquet:{folder}/docs.parquet", files={"docs.parquet": b"PAR1 cut"}),
     follows_hint("Write it again; nothing was changed."),
     Now("parquet:{folder}/docs.parquet", files={"docs.parquet": TEXTS})),
    ("to write to a file", Now(more={"target__url": None}),
     follows_hint("Give another store as target.url."), FINE),
]  # fmt: skip


@pytest.fixture
def target(tmp_path: Path) -> str:
    """A database with nothing in it."""
    with chroma(tmp_path / "db"):
        pass
    return f"chroma:{tmp_path}/db"


@wrong_and_right(ROWS)
def test_what_is_said_of_files_is_done_and_planned(
    wrong: Now, hint: str, right: Now, target: str, tmp_path: Path, command: Command
) -> None:
    def plan(now: Now) -> Any:
        for name, rows in now.files.items():
            write(tmp_path / name, rows)
        more = {"target__url": target, "source__model": None} | now.more
        url = filled(now.url, {"folder": str(tmp_path)})
        return command("plan", write_manifest(tmp_path, url, **more), "--json")

    refused = plan(wrong)
    assert refused.code == 5, refused.out
    assert hint in refused.json["error"]["hint"], refused.out
    led = plan(right)
    assert led.code == 0, led.out


def write(path: Path, rows: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    if isinstance(rows, bytes):
        path.write_bytes(rows)
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_bytes(b"\n".join(map(orjson.dumps, rows)))


@follows_hint("Let its writer put a whole new file in its place (write beside it, then rename)")
def test_a_file_that_is_written_to_is_read_once_it_is_whole(
    target: str, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer that appends while the file is read, at its first look."""
    path = tmp_path / "docs.jsonl"
    write(path, TEXTS[:6])
    manifest = write_manifest(tmp_path, f"jsonl:{path}", target__url=target, source__model=None)
    real: Callable[[Path], Any] = corpus._stamp

    def appending(file: Path) -> Any:
        stamp = real(file)
        with file.open("ab") as out:
            out.write(b"\n" + orjson.dumps(TEXTS[6]))
        return stamp

    with monkeypatch.context() as patch:
        patch.setattr(corpus, "_stamp", appending)
        refused = command("run", manifest, "--json")
    assert refused.code == 5 and "write beside it" in refused.json["error"]["hint"], refused.out
    write(tmp_path / "new.jsonl", TEXTS)
    (tmp_path / "new.jsonl").rename(path)
    assert command("run", manifest, "--json").code == 0
