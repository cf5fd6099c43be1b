"""Files are whole or not there, and what stands in the way is said."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
from pathlib import Path

import pytest

from reembed.errors import PreflightError, ReembedError, UnreachableError
from reembed.run.disk import (
    atomic_file,
    open_private,
    temporary_folder,
    write_atomic,
    write_errors,
    write_output,
)
from reembed.run.sqlite import sqlite_errors


class TestAtomicFile:
    def test_appears_whole(self, tmp_path: Path) -> None:
        path = tmp_path / "new" / "x"
        with atomic_file(path) as file:
            file.write(b"data")
            assert not path.exists()
        assert path.read_bytes() == b"data"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700

    def test_failure_leaves_the_old_and_no_rest(self, tmp_path: Path) -> None:
        path = tmp_path / "x"
        write_atomic(path, b"old")
        with pytest.raises(RuntimeError), atomic_file(path) as file:
            file.write(b"half")
            raise RuntimeError
        assert path.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [path]

    def test_replaces(self, tmp_path: Path) -> None:
        write_atomic(tmp_path / "x", b"old")
        write_atomic(tmp_path / "x", b"new")
        assert (tmp_path / "x").read_bytes() == b"new"

    @pytest.mark.parametrize(
        ("number", "says"),
        [
            (errno.ENOSPC, "no space left"),
            (errno.EDQUOT, "no space left"),
            (errno.EROFS, "cannot be written"),
            (errno.EACCES, "cannot be written"),
            (errno.EIO, "cannot be written"),
            (errno.EFBIG, "cannot be written"),
        ],
    )
    def test_disk_errors_say_what_to_do(self, tmp_path: Path, number: int, says: str) -> None:
        with pytest.raises(PreflightError, match=says) as caught, atomic_file(tmp_path / "x"):
            raise OSError(number, os.strerror(number))
        assert "state" in caught.value.hint
        assert list(tmp_path.iterdir()) == []

    def test_file_where_a_directory_should_be(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        for path in (tmp_path / "file" / "x", tmp_path / "file" / "y" / "z"):
            with pytest.raises(PreflightError, match="cannot be written"):
                write_atomic(path, b"")

    def test_other_errors_are_left_alone(self, tmp_path: Path) -> None:
        with pytest.raises(ConnectionResetError), write_errors(tmp_path):
            raise ConnectionResetError(errno.ECONNRESET, "reset")


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o277, 0o777])
def test_rights_do_not_depend_on_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_atomic(tmp_path / "a" / "b" / "atomic", b"x")
        write_output(tmp_path / "output", "x")
        os.close(open_private(tmp_path / "private", os.O_RDWR))
        (tmp_path / "loose").touch(mode=0o666)
        (tmp_path / "loose").chmod(0o666)
        os.close(open_private(tmp_path / "loose", os.O_RDWR))
    finally:
        os.umask(before)
    modes = {str(path.relative_to(tmp_path)): stat.S_IMODE(path.stat().st_mode)
             for path in tmp_path.rglob("*")}  # fmt: skip
    assert modes == {
        "a": 0o700, "a/b": 0o700, "a/b/atomic": 0o600, "output": 0o600, "private": 0o600,
        "loose": 0o600,
    }  # fmt: skip


class TestOutput:
    def test_is_for_this_user_alone_and_keeps_the_rights_it_had(self, tmp_path: Path) -> None:
        write_output(tmp_path / "new", "text")
        assert (tmp_path / "new").read_text() == "text"
        assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o600
        for mode in (0o640, 0o644):
            (tmp_path / "there").touch()
            (tmp_path / "there").chmod(mode)
            write_output(tmp_path / "there", "text")
            assert stat.S_IMODE((tmp_path / "there").stat().st_mode) == mode

    def test_a_link_stays_one(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        (tmp_path / "link").symlink_to(tmp_path / "file")
        write_output(tmp_path / "link", "text")
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "file").read_text() == "text"

    def test_a_pipe_is_written_into(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
        try:
            write_output(tmp_path / "pipe", "text")
            assert os.read(reader, 100) == b"text"
        finally:
            os.close(reader)
        assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)

    def test_failure_names_the_option(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fsync(fd: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", fsync)
        with pytest.raises(PreflightError, match=r"x: no space left") as caught:
            write_output(tmp_path / "x", "text")
        assert "-o" in caught.value.hint
        assert list(tmp_path.iterdir()) == []


class TestSqlite:
    """Errors that SQLite itself raises."""

    def told(self, path: Path, *statements: str, uri: str = "") -> ReembedError:
        db = sqlite3.connect(uri or path, uri=bool(uri), isolation_level=None, timeout=0.01)
        try:
            with pytest.raises(ReembedError) as caught, sqlite_errors(path):
                for statement in statements:
                    db.execute(statement)
        finally:
            db.close()
        assert str(path) in caught.value.message
        return caught.value

    def test_full(self, tmp_path: Path) -> None:
        path = tmp_path / "db"
        error = self.told(path, "PRAGMA max_page_count = 1", "CREATE TABLE t (a)")
        assert isinstance(error, PreflightError)
        assert "no space left" in error.message
        assert "state" in error.hint

    def test_read_only_or_out_of_reach(self, tmp_path: Path) -> None:
        path = tmp_path / "db"
        sqlite3.connect(path).close()
        error = self.told(path, "CREATE TABLE t (a)", uri=f"file:{path}?mode=ro")
        assert isinstance(error, PreflightError)
        assert "readonly" in error.message
        with pytest.raises(PreflightError, match="unable to open"), sqlite_errors(path):
            sqlite3.connect(tmp_path / "no" / "db").close()

    def test_locked_is_no_fault_of_the_disk(self, tmp_path: Path) -> None:
        path = tmp_path / "db"
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN EXCLUSIVE")
        try:
            error = self.told(path, "CREATE TABLE t (a)")
        finally:
            holder.close()
        assert isinstance(error, UnreachableError)

    def test_damage_is_left_to_the_caller(self, tmp_path: Path) -> None:
        (tmp_path / "db").write_bytes(b"no database" * 1000)
        db = sqlite3.connect(tmp_path / "db")
        with pytest.raises(sqlite3.DatabaseError), sqlite_errors(tmp_path / "db"):
            db.execute("SELECT * FROM sqlite_master")
        db.close()


def test_no_temporary_directory_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr("tempfile.gettempdir", none)
    with (
        pytest.raises(PreflightError, match="no temporary directory") as caught,
        temporary_folder(),
    ):
        pass
    assert "TMPDIR" in caught.value.hint
