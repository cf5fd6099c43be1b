"""Vectors that were paid for are kept, whatever happens next."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
import sqlite3
import threading
import zlib
from collections.abc import Iterable
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from reembed.errors import UnreachableError
from reembed.run import vector_cache
from reembed.run.cached import caches_in, known_hashes
from reembed.run.vector_cache import VectorCache
from reembed.run.vector_file import Marked, Paid
from tests.support.following import follows_hint


def keys(count: int, first: int = 0) -> list[bytes]:
    return [number.to_bytes(32, "big") for number in range(first, first + count)]


def vectors(count: int, dimensions: int = 4) -> np.ndarray:
    return np.arange(count * dimensions, dtype=np.float32).reshape(count, dimensions)


def test_what_was_put_is_got(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "k.vectors"
    with VectorCache(path, 4) as cache:
        cache.put(keys(3), vectors(3), np.array([5, 6, 7], np.int32))
    with VectorCache(path, 4) as cache:
        found = cache.get([*keys(3), *keys(2, 100)])
        assert list(found) == keys(3)
        assert [tokens for _, tokens in found.values()] == [5, 6, 7]
        np.testing.assert_array_equal([vector for vector, _ in found.values()], vectors(3))
    assert path.stat().st_mode & 0o077 == 0


def test_thousands_at_once(tmp_path: Path) -> None:
    with VectorCache(tmp_path / "k.vectors", 4) as cache:
        cache.put(keys(3_000), vectors(3_000), np.ones(3_000, np.int32))
        assert len(cache.get(keys(3_500))) == 3_000
        assert cache.get([]) == {}


def test_a_key_put_again_has_the_newer_vector(tmp_path: Path) -> None:
    with VectorCache(tmp_path / "k.vectors", 4) as cache:
        cache.put(keys(1), vectors(1), np.ones(1, np.int32))
        cache.put(keys(1), vectors(1) + 1, np.ones(1, np.int32))
        np.testing.assert_array_equal(cache.get(keys(1))[keys(1)[0]][0], vectors(1)[0] + 1)


def test_vectors_of_another_dimension_are_unknown(tmp_path: Path) -> None:
    with VectorCache(tmp_path / "k.vectors", 4) as cache:
        cache.put(keys(1), vectors(1), np.ones(1, np.int32))
    with VectorCache(tmp_path / "k.vectors", 5) as cache:
        assert cache.get(keys(1)) == {}


def test_a_vector_changed_on_disk_is_unknown(tmp_path: Path) -> None:
    path = tmp_path / "k.vectors"
    with VectorCache(path, 4) as cache:
        cache.put(keys(3), vectors(3), np.ones(3, np.int32))
    data = bytearray(path.read_bytes())
    data[data.index(vectors(3)[0].tobytes())] ^= 1
    path.write_bytes(data)
    with VectorCache(path, 4) as cache:
        assert list(cache.get(keys(3))) == keys(3)[1:]


def test_threads_share_one(tmp_path: Path) -> None:
    with VectorCache(tmp_path / "k.vectors", 4) as cache:

        def work(first: int) -> None:
            for number in range(first, first + 50):
                cache.put(keys(1, number), vectors(1), np.ones(1, np.int32))
                assert cache.get(keys(1, number))

        threads = [threading.Thread(target=work, args=(start,)) for start in range(0, 400, 50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(cache.get(keys(400))) == 400


def _fill_and_die(path: Path) -> None:
    cache = VectorCache(path, 4)
    cache.put(keys(100), vectors(100), np.ones(100, np.int32))
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_was_put_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "k.vectors"
    process = multiprocessing.get_context("spawn").Process(target=_fill_and_die, args=(path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    with VectorCache(path, 4) as cache:
        assert len(cache.get(keys(100))) == 100


def filled(path: Path) -> list[bytes]:
    """A file of 20 batches of 100 vectors; the text hashes."""
    hashes = [sha256(key).digest() for key in keys(2_000)]
    with VectorCache(path, 4) as cache:
        for first in range(0, 2_000, 100):
            part = slice(first, first + 100)
            cache.put(hashes[part], vectors(2_000)[part], np.ones(100, np.int32))
    return hashes


def _spoil(path: Path, harm: str) -> None:
    data = path.read_bytes()
    if harm == "garbage":
        path.write_bytes(b"garbage " * 999)
    elif harm == "zeros":  # what a file system may leave where the power failed
        path.write_bytes(data + bytes(5_000))
    elif harm == "cut":
        path.write_bytes(data[: len(data) // 2])
    else:  # in the hashes of the batch in the middle, or its head
        block = len(data) // 20
        at = 10 * block + (100 if harm == "hashes" else 9)
        path.write_bytes(data[:at] + b"\xff" * 3 + data[at + 3 :])


@pytest.mark.parametrize("harm", ["garbage", "zeros", "cut", "hashes", "head"])
def test_a_damaged_file_is_made_good(tmp_path: Path, harm: str) -> None:
    path, told = tmp_path / "k.vectors", list[str]()
    hashes = filled(path)
    _spoil(path, harm)
    spoilt = path.read_bytes()

    def spare() -> Iterable[Paid]:
        return [(hashes[:100], vectors(2_000)[:100], np.ones(100, np.int32))]

    with VectorCache(path, 4, spare=spare, note=told.append) as cache:
        found = cache.get(hashes)
        cache.put(hashes[-1:], vectors(2_000)[-1:], np.ones(1, np.int32))
        assert len(cache.get(hashes[-1:])) == 1
    with VectorCache(path, 4, note=told.append) as cache:
        assert cache.get(hashes).keys() == found.keys() | {hashes[-1]}
    asides = list(tmp_path.glob("k.vectors.damaged-*"))
    if harm in ("cut", "zeros"):  # as a killed process leaves it: nothing but the end is lost
        assert not asides and not told
    else:
        (aside,) = asides
        assert aside.read_bytes() == spoilt
        (note,) = told
        assert aside.name in note
    expected = {"garbage": 100, "zeros": 2_000, "cut": 1_000, "hashes": 1_900, "head": 1_900}
    assert len(found) == expected[harm]
    assert set(hashes[:100]) <= found.keys()
    place = {key: row for row, key in enumerate(hashes)}
    for key, (vector, _) in found.items():
        np.testing.assert_array_equal(vector, vectors(2_000)[place[key]])


def test_a_batch_that_a_killed_process_left_unfinished_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "k.vectors"
    with VectorCache(path, 4) as cache:
        cache.put(keys(3), vectors(3), np.ones(3, np.int32))
        whole = path.read_bytes()
        for cut in range(1, len(whole), 7):
            with path.open("ab") as file:
                file.write(whole[:cut])
            assert len(cache.get(keys(3))) == 3
            cache.put(keys(2, cut + 3), vectors(2), np.ones(2, np.int32))
            assert len(cache.get(keys(2, cut + 3))) == 2
    assert not list(tmp_path.glob("*.damaged-*"))


def _write_with_others(path: Path, first: int) -> None:
    with VectorCache(path, 4) as cache:
        for number in range(first, first + 100):
            cache.put(keys(2, 2 * number), vectors(2), np.ones(2, np.int32))
            assert len(cache.get(keys(2, 2 * number))) == 2


def test_processes_that_write_one_file_take_turns(tmp_path: Path) -> None:
    path, context = tmp_path / "k.vectors", multiprocessing.get_context("spawn")
    with VectorCache(path, 4) as cache:
        processes = [
            context.Process(target=_write_with_others, args=(path, first)) for first in (0, 100)
        ]
        for process in processes:
            process.start()
        for number in range(5_000, 5_020):  # which are forgotten while the others write
            mine = keys(2, 2 * number)
            cache.put(mine, vectors(2), np.ones(2, np.int32))
            gone = Marked([np.frombuffer(b"".join(mine), np.uint8).reshape(2, -1)])
            assert cache.forget(gone.has) == 2 and not cache.get(mine)
        for process in processes:
            process.join()
            assert process.exitcode == 0
        assert len(cache.get(keys(400))) == 400
    assert not list(tmp_path.glob("*.damaged-*"))


@follows_hint("Another process may be using it; run the same", where="run/vector_cache.py")
def test_a_process_that_writes_for_long_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "k.vectors"
    monkeypatch.setattr(vector_cache, "LOCK_SECONDS", 0.05)
    with VectorCache(path, 4) as cache, path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(UnreachableError, match="another process writes it"):
            cache.put(keys(1), vectors(1), np.ones(1, np.int32))
        fcntl.flock(other, fcntl.LOCK_UN)
        cache.put(keys(1), vectors(1), np.ones(1, np.int32))
        assert len(cache.get(keys(1))) == 1


def test_a_file_that_another_process_has_set_aside_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "k.vectors"
    hashes = filled(path)
    with VectorCache(path, 4) as other:
        _spoil(path, "hashes")
        with VectorCache(path, 4) as one:
            one.put(keys(3), vectors(3), np.ones(3, np.int32))
            other.put(keys(3, 9), vectors(3), np.ones(3, np.int32))
            for cache in (one, other):
                assert len(cache.get([*keys(3), *keys(3, 9), *hashes])) == 1_906
    assert len(list(tmp_path.glob("k.vectors.damaged-*[0-9]"))) == 1


def test_what_an_earlier_version_kept_is_found(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "k.sqlite")) as db, db:
        db.execute(
            "CREATE TABLE vectors (text_sha256 BLOB PRIMARY KEY, tokens INTEGER NOT NULL, "
            "vector BLOB NOT NULL, crc32 INTEGER NOT NULL)"
        )
        for row, key in enumerate(keys(3)):
            blob = vectors(3)[row].tobytes()
            db.execute(
                "INSERT INTO vectors VALUES (?, 7, ?, ?)",
                (key, blob, zlib.crc32(blob, zlib.crc32(key, 7)) ^ (row == 2)),
            )
    path = tmp_path / "k.vectors"
    assert caches_in(tmp_path) == [path]
    assert known_hashes(path, keys(4), [7] * 4) == set(keys(2)), "one is not what was written"
    with VectorCache(path, 4) as cache:
        cache.put(keys(1), vectors(1) + 1, np.ones(1, np.int32))
        found = cache.get(keys(4))
    assert found.keys() == set(keys(2))
    np.testing.assert_array_equal(found[keys(1)[0]][0], vectors(1)[0] + 1)
    np.testing.assert_array_equal(found[keys(2)[1]][0], vectors(3)[1])
    assert found[keys(2)[1]][1] == 7
    assert known_hashes(path, keys(4), [7] * 4) == set(keys(2))
