"""Every file of a run, damaged: made again, told in a line, or refused with what to do."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from reembed.errors import DamagedError, PreflightError
from reembed.run.directory import RunDir, new_run_id
from reembed.run.files import VERDICT, read
from reembed.run.ledger import Ledger
from tests.support.chroma_data import chroma, plain_collection
from tests.support.commands import Command, tree
from tests.support.manifests import migration, run_dir, write_manifest


@pytest.fixture(scope="module")
def swapped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("swapped")
    with chroma(folder / "db") as client:
        plain_collection(client, count=120)
    path = write_manifest(folder, f"chroma:{folder / 'db'}", swap__keep_old="0d")
    assert migration(path).run(swap=True).state == "swapped"
    return path


def put_in_place_of(path: Path, kind: str) -> None:
    """Something that is not the file."""
    path.unlink()
    match kind:
        case "garbage":
            path.write_bytes(b"\xff{")
        case "folder":
            path.mkdir()
        case "dangling link":
            path.symlink_to(path.parent / "nowhere" / "at all")
        case "circle":
            path.symlink_to(path.name)


@pytest.mark.parametrize("kind", ["garbage", "folder", "dangling link", "circle", "nothing"])
def test_what_is_done_is_told_as_done_whatever_became_of_its_verdict(
    swapped: Path, command: Command, kind: str
) -> None:
    run = run_dir(swapped).path
    for name in ("verdict.json", "quarantine.parquet", "manifest.yaml"):
        kept = run / name
        data = kept.read_bytes()
        put_in_place_of(kept, kind)
        before = tree(run)
        for words in (("swap", "--yes"), ("run",), ("status",), ("report", "--json")):
            ended = command(words[0], swapped, *words[1:])
            assert ended.code == 0, (name, words, ended.err)
        if name == "verdict.json":
            (said,) = command("status", swapped, "--json").json["messages"][1:]
            assert said.startswith(f"{kept}: the newest verdict is damaged")
            assert "reembed verify" in said
        changed = {path for path, was in tree(run).items() if before.get(path) != was}
        made_again = {"report.html", "summary.md", "ledger.sqlite", "ledger.sqlite.sha256"}
        assert changed <= made_again, "only what a finished swap tells"
        shutil.rmtree(kept) if kept.is_dir() else kept.unlink(missing_ok=True)
        kept.write_bytes(data)


def test_a_file_that_may_not_be_read_is_refused_with_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "verdict.json"
    path.write_text("{}")

    def forbidden(path: Path) -> str:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    with pytest.raises(
        PreflightError, match=r"verdict\.json: cannot be read: Permission"
    ) as caught:
        read(path, VERDICT, forbidden)
    assert "right to read" in caught.value.hint
    run = RunDir.create(tmp_path / "state", "", {})
    monkeypatch.setattr(Path, "open", lambda self, *_: forbidden(self))
    with pytest.raises(PreflightError, match=r"journal\.jsonl: cannot be read: Permission"):
        _ = RunDir(run.path).history.state


def test_a_changed_ledger_is_not_believed(swapped: Path) -> None:
    run = run_dir(swapped)
    with Ledger(run) as ledger:
        counts, entry = ledger.counts(), ledger.lookup(["r7"])
    file = run.path / "ledger.sqlite"
    data = bytearray(file.read_bytes())
    place = data.index(entry["r7"].row_sha256)
    data[place] ^= 1  # SQLite sees nothing in that
    file.write_bytes(data)
    with Ledger(run) as ledger:
        assert (ledger.counts(), ledger.lookup(["r7"])) == (counts, entry)


class TestOrder:
    def test_a_run_of_a_clock_that_was_ahead_does_not_hide_the_next_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("time.gmtime", lambda *_: (2046, 1, 1, 0, 0, 0, 0, 1, 0))
        runs = [RunDir.create(tmp_path, "", {}) for _ in range(3)]
        monkeypatch.undo()
        runs += [RunDir.create(tmp_path, "", {}) for _ in range(3)]
        assert [run.run_id for run in runs] == sorted({run.run_id for run in runs})
        latest = RunDir.latest(tmp_path)
        assert latest is not None and latest.run_id == runs[-1].run_id

    @pytest.mark.parametrize("latest", ["99991231t235959-0000", "99991231t235959-ffff",
                                        "99991231t235959-ffff0"])  # fmt: skip
    def test_ids_go_on_counting(self, latest: str) -> None:
        following = new_run_id(latest)
        assert following > latest
        assert new_run_id(following) > following

    def test_a_run_that_has_lost_its_journal_is_not_passed_over(self, tmp_path: Path) -> None:
        run = RunDir.create(tmp_path, "", {})
        (run.path / "export").mkdir()
        for lose in (lambda path: path.write_bytes(b""), lambda path: path.unlink()):
            lose(run.journal.path)
            with pytest.raises(DamagedError, match=r"journal\.jsonl: the journal of this run"):
                RunDir.latest(tmp_path)
