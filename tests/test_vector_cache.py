"""Vectors that were paid for are kept, whatever happens next."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import threading
from pathlib import Path

import numpy as np
import pytest

from reembed.errors import ReembedError
from reembed.vector_cache import VectorCache


def keys(count: int, first: int = 0) -> list[bytes]:
    return [number.to_bytes(32, "big") for number in range(first, first + count)]


def vectors(count: int, dimensions: int = 4) -> np.ndarray:
    return np.arange(count * dimensions, dtype=np.float32).reshape(count, dimensions)


def test_what_was_put_is_got(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "k.sqlite"
    with VectorCache(path, 4) as cache:
        cache.put(keys(3), vectors(3), np.array([5, 6, 7], np.int32))
    with VectorCache(path, 4) as cache:
        found = cache.get([*keys(3), *keys(2, 100)])
        assert list(found) == keys(3)
        assert [tokens for _, tokens in found.values()] == [5, 6, 7]
        np.testing.assert_array_equal([vector for vector, _ in found.values()], vectors(3))
    assert path.stat().st_mode & 0o077 == 0


def test_thousands_at_once(tmp_path: Path) -> None:
    with VectorCache(tmp_path / "k.sqlite", 4) as cache:
        cache.put(keys(3_000), vectors(3_000), np.ones(3_000, np.int32))
        assert len(cache.get(keys(3_500))) == 3_000
        assert cache.get([]) == {}


def test_a_key_put_again_has_the_newer_vector(tmp_path: Path) -> None:
    with VectorCache(tmp_path / "k.sqlite", 4) as cache:
        cache.put(keys(1), vectors(1), np.ones(1, np.int32))
        cache.put(keys(1), vectors(1) + 1, np.ones(1, np.int32))
        np.testing.assert_array_equal(cache.get(keys(1))[keys(1)[0]][0], vectors(1)[0] + 1)


def test_vectors_of_another_dimension_are_unknown(tmp_path: Path) -> None:
    with VectorCache(tmp_path / "k.sqlite", 4) as cache:
        cache.put(keys(1), vectors(1), np.ones(1, np.int32))
    with VectorCache(tmp_path / "k.sqlite", 5) as cache:
        assert cache.get(keys(1)) == {}


def test_a_vector_changed_on_disk_is_unknown(tmp_path: Path) -> None:
    path = tmp_path / "k.sqlite"
    with VectorCache(path, 4) as cache:
        cache.put(keys(3), vectors(3), np.ones(3, np.int32))
    db = sqlite3.connect(path)
    (blob,) = db.execute("SELECT vector FROM vectors WHERE text_sha256 = ?", keys(1)).fetchone()
    spoilt = bytes([blob[0] ^ 1]) + blob[1:]
    db.execute("UPDATE vectors SET vector = ? WHERE text_sha256 = ?", (spoilt, keys(1)[0]))
    db.commit()
    db.close()
    with VectorCache(path, 4) as cache:
        assert list(cache.get(keys(3))) == keys(3)[1:]


def test_threads_share_one(tmp_path: Path) -> None:
    with VectorCache(tmp_path / "k.sqlite", 4) as cache:

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
    path = tmp_path / "k.sqlite"
    process = multiprocessing.get_context("spawn").Process(target=_fill_and_die, args=(path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    with VectorCache(path, 4) as cache:
        assert len(cache.get(keys(100))) == 100


@pytest.mark.parametrize("harm", ["garbage", "cut"])
def test_a_damaged_file_is_named_with_a_way_out(tmp_path: Path, harm: str) -> None:
    path = tmp_path / "k.sqlite"
    with VectorCache(path, 4) as cache:
        cache.put(keys(2_000), vectors(2_000), np.ones(2_000, np.int32))
    data = path.read_bytes()
    path.write_bytes(b"garbage " * 999 if harm == "garbage" else data[: len(data) // 2])
    with pytest.raises(ReembedError, match=r"k\.sqlite") as caught, VectorCache(path, 4) as cache:
        cache.get(keys(2_000))
    assert caught.value.exit_code == 5
    assert "Delete" in caught.value.hint
