"""Wherever the disk fails, the command says so, and the same command again finishes.

A story of commands is told once to find every place that is written to. Then it is told again: each
command is given once for every place that it writes to for the first time, with the disk failing
there, and once more with the disk mended. In the end everything is as if nothing had happened.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from chromadb.errors import InternalError

import reembed.stages.export
import reembed.stages.load
import reembed.sync.carry_back
import reembed.sync.difference
from reembed.embedders.embedder import Embedder
from reembed.errors import PreflightError, ReembedError, UnreachableError
from reembed.quality.twins import TwinFinder
from reembed.run.directory import RunDir
from reembed.stores.chroma.failures import mapped
from reembed.stores.chroma.sqlite import asked_migrations
from tests.support.chroma_data import chroma, plain_collection, records_of, vectors_of
from tests.support.commands import Command, Outcome
from tests.support.disk_faults import FAULTS, FULL, READ_ONLY, Disk, Place, opened
from tests.support.manifests import migration, write_manifest
from tests.support.texts import sentence, vector_of

RECORDS = 60
SHARD = 40
BATCH = 8

SITES = {
    ".reembed": "where `init` puts the schema",
    ".reembed/manifest.schema.json": "for editors",
    "state": "the state directory",
    "state/cache": "its vector caches",
    "state/cache/KEY.vectors": "the new model's",
    "state/cache/KEY.model.json": "which model that is",
    "state/move": "the migration's directory",
    "state/move/lease": "",
    "state/move/progress.json": "how far the command is, for others to look at",
    "state/move/RUN": "the run directory",
    "state/move/RUN/manifest.yaml": "",
    "state/move/RUN/journal.jsonl": "",
    "state/move/RUN/spending.jsonl": "the books of what is paid",
    "state/move/RUN/learnt.json": "what was learnt of the providers' limits",
    "state/move/RUN/ids.parquet": "the census",
    "state/move/RUN/export": "",
    "state/move/RUN/export/shard-N.parquet": "",
    "state/move/RUN/export/delta-N.parquet": "catch-up and sweep",
    "state/move/RUN/embed": "",
    "state/move/RUN/embed/shard-N.parquet": "",
    "state/move/RUN/embed/delta-N.parquet": "",
    "state/move/RUN/quarantine": "",
    "state/move/RUN/quarantine/shard-N.parquet": "records that the shard leaves out",
    "state/move/RUN/quarantine/delta-N.parquet": "removed where there are none",
    "state/move/RUN/quarantine.parquet": "all of them",
    "state/move/RUN/ledger.sqlite": "",
    "state/move/RUN/ledger.sqlite.sha256": "its checksum, once it is closed",
    "state/move/RUN/verdict.json": "",
    "state/move/RUN/report.html": "",
    "state/move/RUN/summary.md": "",
    "state/move/RUN/carried-back.parquet": "what a rollback carried",
    "state/move/RUN/cache-old-model-KEY.vectors": "what the old model gave for it",
    "init.yaml": "init -o",
    "report.html": "report -o",
    "db/chroma.sqlite3": "names and rounded floats, written beside Chroma",
    "db create_collection": "the shadow, and the hold on writers",
    "db add": "records, by Chroma itself",
    "db delete": "",
    "db delete_collection": "",
    "db modify": "a claim taken over or renewed",
}
"""Every place that a migration writes to. A new one needs a line here and is failed by that."""


class Story:
    """A migration from `init` to `clean`, with an application that writes in between."""

    def __init__(self, folder: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in (
            reembed.sync.difference,
            reembed.stages.export,
            reembed.stages.load,
            reembed.sync.carry_back,
        ):
            monkeypatch.setattr(module, "SHARD_ROWS", SHARD)
        monkeypatch.setattr(
            "reembed.stages.embed.SHARDS_IN_WORK", 1
        )  # or the order is left to chance
        self.folder = folder
        self.command = command
        self.paid: Counter[tuple[str, str]] = Counter()
        self._count_what_is_paid(monkeypatch)
        folder.mkdir()
        with chroma(folder / "db") as client:
            docs = plain_collection(client, count=RECORDS)
            docs.add(ids=["mute"], embeddings=[vector_of("old", "mute")])
            self.expected = records_of(docs)
        self.manifest = write_manifest(
            folder, f"chroma:{folder / 'db'}", state="state", swap__keep_old="0d",
            verify__allow_quarantined=1, embed__concurrency=1,
            model__options={"batch_items": BATCH},
        )  # fmt: skip

    def _count_what_is_paid(self, monkeypatch: pytest.MonkeyPatch) -> None:
        embed = Embedder.embed_documents

        def counted(embedder: Embedder, texts: Any, on_batch: Any = None) -> Any:
            def keep(indices: Any, *vectors: Any) -> None:
                self.paid.update((embedder.model.name, texts[index]) for index in indices)
                on_batch(indices, *vectors)

            # Without `on_batch` it is a measurement, which is made again on purpose.
            return embed(embedder, texts, keep if on_batch is not None else None)

        monkeypatch.setattr(Embedder, "embed_documents", counted)

    def steps(self) -> list[tuple[list[object], Callable[[], None] | None]]:
        """Commands, each with what the application writes before it."""
        url, m = f"chroma:{self.folder / 'db'}", self.manifest
        return [
            (["init", url, "--collection", "docs", "-o", self.folder / "init.yaml"], None),
            (["run", m], None),
            (["report", m, "-o", self.folder / "report.html"], None),
            (["swap", m, "--yes"], lambda: self.write("docs", "old", 100)),
            (["rollback", m, "--yes"], lambda: self.write("docs", "new", 200)),
            (["clean", m, "--yes"], None),
        ]

    def write(self, name: str, model: str, first: int) -> None:
        """Add one record, change a text, change metadata, delete one."""
        new, changed = sentence(first), sentence(first + 1)
        with chroma(self.folder / "db") as client:
            docs = client.get_collection(name, embedding_function=None)
            docs.add(
                ids=[f"n{first}"], documents=[new], embeddings=[vector_of(model, new)],
                metadatas=[{"share": 0.1 + first}],
            )  # fmt: skip
            docs.update(ids=["r1"], documents=[changed], embeddings=[vector_of(model, changed)])
            docs.update(ids=["r2"], metadatas=[{"n": first}])
            docs.delete(ids=[f"r{3 + first // 100}"])
            self.expected = records_of(docs)
            if model == "new":  # the record without a text is not in the new collection
                self.expected["mute"] = (None, "null", None)

    def save(self) -> None:
        """Keep everything as it is, for `restore`."""
        shutil.rmtree(self.folder.with_suffix(".saved"), ignore_errors=True)
        shutil.copytree(self.folder, self.folder.with_suffix(".saved"))
        self._saved = self.paid.copy()

    def restore(self) -> None:
        shutil.rmtree(self.folder)
        shutil.copytree(self.folder.with_suffix(".saved"), self.folder)
        self.paid = self._saved.copy()

    def check_live(self, step: str) -> None:
        with chroma(self.folder / "db") as client:
            docs = client.get_collection("docs", embedding_function=None)
            found = records_of(docs)
            ids = [id for id in found if id != "mute"]
            model = "new" if step == "swap" else "old"
            texts = [found[id][0] or "" for id in ids]
            vectors = vectors_of(docs, ids)
        expected = dict(self.expected)
        if step == "swap":
            del expected["mute"]
        assert found == expected
        for text, vector in zip(texts, vectors, strict=True):
            assert vector == pytest.approx(vector_of(model, text), rel=1e-5), text


@pytest.mark.timeout(1200)  # a minute of computing, on a busy machine too
def test_every_place_fails_in_turn(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patches:
        story = Story(tmp_path / "told", command, patches)
        disk = Disk(story.folder, patches)
        places = list[list[Place]]()
        opened.paths = set()
        for arguments, before in story.steps():
            if before:
                before()
            disk.seen.clear()
            outcome = command(*arguments)
            assert outcome.code in (0, 3), outcome.err
            places.append(list(disk.seen))
            story.check_live(str(arguments[0]))
        known = {place.path for step in places for place in step}
        assert known == set(SITES)
        unknown = {disk.place(path) for path in opened.paths} - known - {None}
        opened.paths = None
        assert {path for path in unknown if path and not is_chromas(path)} == set()

    for kind, errors in FAULTS.items():
        with monkeypatch.context() as patches:
            told_again(
                Story(tmp_path / kind, command, patches), Disk(tmp_path / kind, patches), places,
                errors,
            )  # fmt: skip


def is_chromas(path: str) -> bool:
    return path.startswith("db/") or path.endswith(("-wal", "-shm")) or path == "calls.jsonl"


def told_again(story: Story, disk: Disk, places: list[list[Place]], errors: dict[str, int]) -> None:
    """The story with the disk failing at each place, the first time that it is written to."""
    failed = set[Place]()
    for (arguments, before), reached in zip(story.steps(), places, strict=True):
        step = str(arguments[0])
        if before:
            before()
        story.save()

        def failing(place: Place, arguments: list[object] = arguments) -> Outcome:
            disk.fail(place, errors[place.operation])
            outcome = story.command(*arguments, "--json")
            disk.mend()
            return outcome

        for place in reached:
            again = place.operation == "chroma" or place.path.endswith("journal.jsonl")
            if place.operation not in errors or (place in failed and not again):
                continue
            failed.add(place)
            outcome = failing(place)
            if not disk.hit:  # what failed before left it behind
                assert outcome.code in (0, 3), outcome.out
                story.restore()
                outcome = failing(place)
                assert disk.hit, f"{step} does not reach {place}"
            check_refusal(outcome, place, step)
            check_whole(story.folder)
        outcome = story.command(*arguments, "--json")
        assert outcome.code in (0, 3), (step, outcome.out)
        story.check_live(step)
    # What was in flight when the cache itself could not be written is lost; nothing else is.
    caches = sum(place.path.endswith(".vectors") for place in failed)
    assert sum(count - 1 for count in story.paid.values()) <= caches * BATCH
    assert {place.operation for place in failed} == set(errors)


def check_refusal(outcome: Outcome, place: Place, step: str) -> None:
    told = f"{step}, {place}: {outcome.code} {outcome.out[-600:]} {outcome.err[-600:]}"
    assert "Traceback" not in outcome.err, told
    if outcome.code in (0, 3):  # all was done, but for giving the store's lease back
        if place.path.endswith("ledger.sqlite.sha256"):
            return  # without it the ledger is looked through the next time
        if place.path.endswith("progress.json"):
            return  # others cannot look on, and that is all
        if place.path.endswith("move/lease"):
            return  # held without a name on it
        assert "could not be given back" in outcome.err, told
        return
    assert outcome.code in (5, 7), told
    error = outcome.json["error"]
    name = Path(place.path).name
    known = [part for part in re.split("KEY|N", name) if part not in ("RU", "")]
    if place.operation != "chroma":
        assert all(part in error["message"] for part in known), told
    assert "disk" in error["hint"] or "space" in error["hint"] or "right to write" in error["hint"]


def check_whole(folder: Path) -> None:
    """Nothing is half-written, and nothing temporary is left."""
    assert not list(folder.rglob("*.tmp"))
    for path in folder.rglob("*.parquet"):
        pq.read_table(path, partitioning=None)
    for path in folder.rglob("*.json"):
        json.loads(path.read_text())
    for path in (folder / "init.yaml", *folder.rglob("*.html")):
        assert not path.exists() or path.read_text().endswith(("</html>\n", "\n")), path
    run = RunDir.latest(folder / "state" / "move")
    if run is not None:
        for stage in ("export", "embed"):
            assert all(run.is_whole(shard) for shard in run.shards(stage).values())


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)), resource.RLIM_INFINITY))
from reembed.cli.entry import main
main()
"""


def test_chroma_itself_cannot_write_more(tmp_path: Path) -> None:
    """The kernel refuses what would make chroma.sqlite3 larger, so nothing here is pretended."""
    with chroma(tmp_path / "db") as client:
        docs = plain_collection(client, count=1_000)
        expected = records_of(docs)
    size = (tmp_path / "db" / "chroma.sqlite3").stat().st_size
    path = write_manifest(tmp_path, f"chroma:{tmp_path / 'db'}")

    def run(limit: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", LIMITED, str(limit), "run", str(path), "--swap"],
            text=True, capture_output=True, check=False,
        )  # fmt: skip

    assert migration(path).run(until="embed").state == "embedded"
    for more in (0, 100_000, 300_000):
        done = run(size + more)
        assert done.returncode in (5, 7), done.stderr
        assert "Traceback" not in done.stderr
        assert "disk of Chroma's database may be full" in done.stderr, done.stderr
        with chroma(tmp_path / "db") as client:
            assert records_of(client.get_collection("docs", embedding_function=None)) == expected
    done = run(2**40)
    assert done.returncode == 0, done.stderr
    with chroma(tmp_path / "db") as client:
        docs = client.get_collection("docs", embedding_function=None)
        assert records_of(docs) == expected
        assert len(vectors_of(docs, ["r0"])[0]) == 64


@pytest.mark.parametrize(
    ("said", "kind", "hint"),
    [
        (FULL, PreflightError, "Free some space"),
        (READ_ONLY, PreflightError, "right to write"),
        ("Error in compaction: Failed to apply logs to the metadata segment", UnreachableError,
         "may be full"),
        ("Error executing plan: Error sending backfill request to compactor: Error purging logs",
         UnreachableError, "may be full"),
        ("something else", UnreachableError, "Run again"),
    ],
)  # fmt: skip
def test_what_chroma_says_on_a_real_full_disk(
    said: str, kind: type[ReembedError], hint: str
) -> None:
    with pytest.raises(kind, match="docs") as caught, mapped("docs"):
        raise InternalError(said)
    assert hint in caught.value.hint


def test_a_full_temporary_directory_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> None:
        raise InternalError(FULL)

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("chromadb.PersistentClient", full)
    with pytest.raises(PreflightError, match=str(tmp_path)) as caught:
        asked_migrations.__wrapped__()
    assert "TMPDIR" in caught.value.hint
    assert list(tmp_path.iterdir()) == []

    with TwinFinder() as finder:
        finder._db.execute("PRAGMA max_page_count = 3")
        ids = [f"r{number}" for number in range(500)]
        with pytest.raises(PreflightError, match=r"TMPDIR.*no space left"):
            finder.add(ids, [id.encode() for id in ids], np.zeros((500, 4), np.float32))
