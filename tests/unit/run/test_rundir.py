"""The run directory: a journal that survives tearing, shards that cannot rot, one owner."""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reembed.errors import LockedError, ManifestError, PreflightError
from reembed.records import export_batch, vectors_to_fixed_array, vectors_to_list_array
from reembed.run.directory import RunDir, new_run_id
from reembed.run.disk import file_sha256
from reembed.run.journal import Journal
from reembed.run.lock import StateLock

IDENTITY = {
    "name": "m",
    "source": {"url": "chroma:/db", "collection": "docs"},
    "text": "{document}",
}


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal.jsonl")


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir.create(tmp_path / "state" / "m", "name: m\n", IDENTITY)


def names(journal: Journal) -> list[str]:
    return [event["event"] for event in journal.read()]


class TestJournal:
    def test_keeps_order_and_values(self, journal: Journal) -> None:
        journal.append("one", text="ü\n\u2028", number=1.5, nothing=None)
        journal.append("two")
        first, second = journal.read()
        assert first["text"] == "ü\n\u2028"
        assert (first["number"], first["nothing"]) == (1.5, None)
        assert second["event"] == "two"
        assert second["t"] >= first["t"]

    def test_missing_is_empty(self, journal: Journal) -> None:
        assert journal.read() == []

    @pytest.mark.parametrize("tail", [b"", b"{", b'{"t": 1, "ev', b"\0\0\0", b'{"event": "whole"}'])
    def test_torn_last_line_is_not_read_and_cut_off(self, journal: Journal, tail: bytes) -> None:
        """A line without its newline was never finished, even if what is there parses: were it
        read now and cut by the next append, an event would have happened and then not."""
        journal.append("one")
        with journal.path.open("ab") as file:
            file.write(tail)
        assert names(journal) == ["one"]
        journal.append("two")
        assert names(journal) == ["one", "two"]

    def test_torn_at_every_byte(self, journal: Journal) -> None:
        journal.append("one")
        whole = journal.path.read_bytes()
        journal.append("two", text="ü")
        both = journal.path.read_bytes()
        for end in range(len(whole), len(both)):
            journal.path.write_bytes(both[:end])
            assert names(journal) == ["one"], end
        journal.path.write_bytes(both)
        assert names(journal) == ["one", "two"]

    @pytest.mark.parametrize("line", [b"{", b"", b"7", b"{}", b"\xff", b'{"event"'])
    @pytest.mark.parametrize("last", [False, True])
    def test_damaged_whole_line_is_an_error(
        self, journal: Journal, line: bytes, last: bool
    ) -> None:
        journal.append("one")
        with journal.path.open("ab") as file:
            file.write(line + b"\n")
            if not last:
                file.write(b'{"t": 1, "event": "three"}\n')
        with pytest.raises(PreflightError, match="line 2 is damaged") as caught:
            journal.read()
        assert "again" in caught.value.hint
        with pytest.raises(PreflightError, match="line 2 is damaged"):
            journal.append("four")

    def test_a_changed_lost_or_moved_line_is_damage(self, journal: Journal) -> None:
        for number in range(4):
            journal.append("n", id=f"record-{number}")
        lines = journal.path.read_bytes().splitlines(keepends=True)
        changed = [*lines[:1], lines[1].replace(b"record-1", b"record-7"), *lines[2:]]
        for wrong in (changed, lines[1:], [*lines[:2], *lines[3:]], [lines[1], lines[0]]):
            journal.path.write_bytes(b"".join(wrong))
            with pytest.raises(PreflightError, match=r"line \d is damaged: it or a line before"):
                Journal(journal.path).read()

    def test_lines_of_a_version_without_checksums_are_read_and_then_covered(
        self, journal: Journal
    ) -> None:
        journal.path.write_text('{"t": 1, "event": "one", "n": 1}\n')
        journal.append("two")
        assert names(Journal(journal.path)) == ["one", "two"]
        data = journal.path.read_bytes()
        journal.path.write_bytes(data.replace(b'"n": 1', b'"n": 2'))
        with pytest.raises(PreflightError, match="line 2 is damaged: it or a line before"):
            Journal(journal.path).read()

    def test_what_another_process_appends_is_taken_in(self, journal: Journal) -> None:
        journal.append("one")
        other = Journal(journal.path)
        other.append("two")
        assert names(journal) == ["one", "two"]
        journal.append("three")
        assert names(other) == ["one", "two", "three"]

    def test_disk_that_takes_a_part(
        self, journal: Journal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real_write = os.write
        monkeypatch.setattr(os, "write", lambda fd, data: real_write(fd, data[:3]))
        journal.append("one", text="longer than three bytes")
        assert journal.read()[0]["text"] == "longer than three bytes"

    def test_full_disk_leaves_a_readable_journal(
        self, journal: Journal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        journal.append("one")
        real_write = os.write

        def write(fd: int, data: bytes) -> int:
            if len(data) < 20:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real_write(fd, data[:-10])

        monkeypatch.setattr(os, "write", write)
        with pytest.raises(PreflightError, match="no space left"):
            journal.append("two", text="some words")
        monkeypatch.undo()
        assert names(journal) == ["one"]
        journal.append("three")
        assert names(journal) == ["one", "three"]

    def test_is_private(self, journal: Journal) -> None:
        journal.append("one")
        assert stat.S_IMODE(journal.path.stat().st_mode) == 0o600

    def test_survives_kill(self, journal: Journal) -> None:
        """Every event whose append returned is there after SIGKILL."""
        code = (
            "import sys; from pathlib import Path; from reembed.run.journal import Journal\n"
            "journal = Journal(Path(sys.argv[1]))\n"
            "for number in range(10_000):\n"
            "    journal.append('n', n=number); print(number, flush=True)\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", code, str(journal.path)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            for _ in range(20):
                reported = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
        numbers = [event["n"] for event in journal.read()]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) > reported


HOLD = """
import sys, time
from pathlib import Path
from reembed.run.lock import StateLock
lease = StateLock(Path(sys.argv[1]))
lease.acquire()
print("held", flush=True)
time.sleep(60)
"""


class TestStateLock:
    def test_no_link_is_followed(self, tmp_path: Path) -> None:
        """Who may write in the folder could point it at any file of the user's."""
        victim = tmp_path / "victim"
        victim.write_text("kept")
        (tmp_path / "state").mkdir()
        for target in (victim, tmp_path / "nowhere"):
            link = tmp_path / "state" / f"lease-{target.name}"
            link.symlink_to(target)
            with pytest.raises(PreflightError, match="cannot be written") as refused:
                StateLock(link).acquire()
            assert "Move what is in the way" in refused.value.hint
        assert victim.read_text() == "kept" and not (tmp_path / "nowhere").exists()

    def hold(self, path: Path) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    def test_one_process_at_a_time_and_a_dead_one_holds_nothing(self, tmp_path: Path) -> None:
        path = tmp_path / "m" / "lease"
        with self.hold(path) as process:
            with pytest.raises(LockedError, match=f"pid {process.pid} on .* since ") as caught:
                StateLock(path).acquire()
            assert caught.value.exit_code == 6
            process.kill()
        with StateLock(path) as lease:
            assert lease.held

    def test_released_is_free(self, tmp_path: Path) -> None:
        first, second = StateLock(tmp_path / "lease"), StateLock(tmp_path / "lease")
        first.acquire()
        first.acquire()
        with pytest.raises(LockedError):
            second.acquire()
        assert not second.held
        first.release()
        first.release()
        with second:
            assert f"pid {os.getpid()} " in second.path.read_text()
        assert second.path.read_text() == ""

    def test_children_do_not_keep_it(self, tmp_path: Path) -> None:
        with StateLock(tmp_path / "lease"):
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        try:
            with StateLock(tmp_path / "lease"):
                pass
        finally:
            child.kill()
            child.wait()


class TestIdentity:
    def test_same_goes_on(self, run: RunDir) -> None:
        run.check_identity(IDENTITY)
        assert run.has_identity(dict(reversed(IDENTITY.items())))

    @pytest.mark.parametrize(
        ("change", "shown"),
        [
            ({"text": "{id}"}, ": text differ"),
            (
                {"source": {"url": "chroma:/db", "collection": "other"}},
                ": source.collection differ",
            ),
            ({"model": {"name": "m"}}, ": model differ"),
        ],
    )
    def test_difference_is_named(self, run: RunDir, change: dict[str, Any], shown: str) -> None:
        other = IDENTITY | change
        assert not run.has_identity(other)
        with pytest.raises(ManifestError) as caught:
            run.check_identity(other)
        assert shown in caught.value.message
        assert "new `name`" in caught.value.hint

    def test_key_of_a_later_version_with_nothing_in_it_is_no_difference(self, run: RunDir) -> None:
        run.check_identity(IDENTITY | {"later": None})


def table(rows: int = 3) -> pa.Table:
    return pa.table({"id": [str(row) for row in range(rows)], "n": list(range(rows))})


class TestRunDir:
    def test_create(self, run: RunDir) -> None:
        assert (run.path / "manifest.yaml").read_text() == "name: m\n"
        assert run.history.read() == [run.history.created]
        assert run.history.created.run == run.run_id
        assert stat.S_IMODE(run.path.stat().st_mode) == 0o700

    def test_ids_sort_by_time_and_are_legal_in_names(self) -> None:
        one, two = new_run_id(), new_run_id()
        assert one != two
        assert one[:15] <= two[:15]
        assert set(one) <= set("0123456789abcdeft-")

    def test_latest_passes_over_the_half_made(self, run: RunDir) -> None:
        state = run.path.parent
        (state / "99991231t000000-dead").mkdir()
        (state / "99991231t000001-dead").mkdir()
        (state / "99991231t000001-dead" / "journal.jsonl").write_text('{"event": "run-cre')
        (state / "lease").touch()
        latest = RunDir.latest(state)
        assert latest is not None
        assert latest.path == run.path

    def test_latest_of_none(self, tmp_path: Path) -> None:
        assert RunDir.latest(tmp_path / "none") is None
        assert RunDir.latest(tmp_path) is None


class TestShards:
    def test_round_trip(self, run: RunDir) -> None:
        shard = run.write_shard("export", "shard-00000", table())
        assert (shard.name, shard.rows, shard.stem) == (
            "export/shard-00000.parquet", 3, "shard-00000",
        )  # fmt: skip
        assert run.is_whole(shard)
        assert run.read_shard(shard).equals(table())
        assert run.read_shard(shard, ["n"]).column_names == ["n"]
        assert run.shards("export") == {"shard-00000": shard}
        assert run.shards("embed") == {}

    def test_texts_are_compressed_and_what_does_not_compress_is_not(self, run: RunDir) -> None:
        batch = export_batch(
            ["a"] * 1000, ["text"] * 1000, ["null"] * 1000, [None] * 1000,
            vectors_to_list_array(np.ones((1000, 8), np.float32)),
        )  # fmt: skip
        fixed = pa.table({"embedding": vectors_to_fixed_array(np.ones((1000, 8), np.float32))})
        codecs = {}
        for name, written in (("a", pa.Table.from_batches([batch])), ("b", fixed)):
            shard = run.write_shard("export", name, written)
            assert run.read_shard(shard).equals(written)
            group = pq.ParquetFile(run.path / shard.name).metadata.row_group(0)
            for place in range(group.num_columns):
                column = group.column(place)
                assert not column.has_dictionary_page
                codecs[name, column.path_in_schema] = column.compression
        assert codecs == {
            ("a", "id"): "ZSTD", ("a", "document"): "ZSTD", ("a", "metadata"): "ZSTD",
            ("a", "uri"): "ZSTD", ("a", "embedding.list.element"): "UNCOMPRESSED",
            ("a", "row_sha256"): "UNCOMPRESSED", ("b", "embedding.list.element"): "UNCOMPRESSED",
        }  # fmt: skip

    def test_columns_come_in_the_order_asked_for(self, run: RunDir) -> None:
        shard = run.write_shard("export", "a", pa.table({"a": [1], "b": [2]}))
        assert run.read_shard(shard, ["b", "a"]).column_names == ["b", "a"]

    def test_same_table_same_bytes(self, run: RunDir) -> None:
        one = run.write_shard("export", "a", table(1000))
        two = run.write_shard("export", "b", table(1000))
        assert one.sha256 == two.sha256

    @given(st.data())
    def test_one_flipped_bit_is_seen(
        self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
    ) -> None:
        run = RunDir(tmp_path_factory.mktemp("run"))
        shard = run.write_shard("export", "a", table())
        path = run.path / shard.name
        content = bytearray(path.read_bytes())
        bit = data.draw(st.integers(0, len(content) * 8 - 1))
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        assert not run.is_whole(shard)

    def test_a_shard_is_read_again_only_if_it_was_written_to(
        self, run: RunDir, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shard = run.write_shard("export", "a", table())
        path, read = run.path / shard.name, list[Path]()

        def counted(path: Path) -> str:
            read.append(path)
            return file_sha256(path)

        monkeypatch.setattr("reembed.run.directory.file_sha256", counted)
        assert all(run.is_whole(shard) for _ in range(2))
        assert len(read) == 2, "it was written a moment ago: its time may be that of another write"
        monkeypatch.setattr("reembed.run.directory.TICK_NS", -1)
        assert all(run.is_whole(shard) for _ in range(5))
        assert len(read) == 3
        path.write_bytes(bytes(path.stat().st_size))
        assert not run.is_whole(shard)

    def test_missing_or_cut_file_is_not_whole(self, run: RunDir) -> None:
        shard = run.write_shard("export", "a", table())
        path = run.path / shard.name
        path.write_bytes(path.read_bytes()[:-1])
        assert not run.is_whole(shard)
        path.unlink()
        assert not run.is_whole(shard)

    def test_written_again_keeps_its_place_and_takes_the_new_hash(self, run: RunDir) -> None:
        run.write_shard("export", "a", table())
        run.write_shard("export", "b", table())
        newer = run.write_shard("export", "a", table(5))
        assert list(run.shards("export")) == ["a", "b"]
        assert run.shards("export")["a"] == newer
        assert run.is_whole(newer)

    def test_file_that_was_not_journalled_does_not_exist(self, run: RunDir) -> None:
        shard = run.write_shard("export", "a", table())
        lines = run.journal.path.read_bytes().splitlines(keepends=True)
        assert json.loads(lines[-1])["name"] == shard.name
        run.journal.path.write_bytes(b"".join(lines[:-1]))
        assert run.shards("export") == {}
