"""Vectors that were paid for are kept, whatever happens next."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import threading
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from reembed.run.vector_cache import PAGE_BYTES, Paid, VectorCache


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


def _spoil(path: Path, harm: str) -> None:
    data = path.read_bytes()
    if harm == "garbage":
        path.write_bytes(b"garbage " * 999)
    elif harm == "cut":
        path.write_bytes(data[: len(data) // 2])
    else:  # the page with a text's vector, or the one with its key in the index
        key = sha256(keys(2_000)[1_000]).digest()
        holds = {data.find(key), data.rfind(key)}
        vector = data.index(vectors(2_000)[1_000].tobytes())
        at = vector if harm == "row" else max(holds, key=lambda place: abs(place - vector))
        at -= at % PAGE_BYTES
        path.write_bytes(data[:at] + b"\xff" * PAGE_BYTES + data[at + PAGE_BYTES :])


@pytest.mark.parametrize("harm", ["garbage", "cut", "row", "index"])
def test_a_damaged_file_is_set_aside_and_filled_again(tmp_path: Path, harm: str) -> None:
    path, told = tmp_path / "k.sqlite", list[str]()
    hashes = [sha256(key).digest() for key in keys(2_000)]
    with VectorCache(path, 4) as cache:
        cache.put(hashes, vectors(2_000), np.ones(2_000, np.int32))
    _spoil(path, harm)
    spoilt = path.read_bytes()

    def spare() -> Iterable[Paid]:
        return [(hashes[:100], vectors(2_000)[:100], np.ones(100, np.int32))]

    with VectorCache(path, 4, spare=spare, note=told.append) as cache:
        found = cache.get(hashes)
        cache.put(hashes[-1:], vectors(1), np.ones(1, np.int32))
        assert len(cache.get(hashes[-1:])) == 1
    (aside,) = tmp_path.glob("k.sqlite.damaged-*")
    assert aside.read_bytes() == spoilt
    (note,) = told
    assert aside.name in note
    assert set(hashes[:100]) <= found.keys()
    if harm == "row":
        assert 1_000 < len(found) < 2_000, "what is on whole pages is read"
    if harm == "index":
        assert len(found) == 2_000, "no row is on that page"
    place = {key: row for row, key in enumerate(hashes)}
    for key, (vector, _) in found.items():
        np.testing.assert_array_equal(vector, vectors(2_000)[place[key]])


def test_damage_that_shows_only_in_a_write_is_mended_too(tmp_path: Path) -> None:
    path, told = tmp_path / "k.sqlite", list[str]()
    with VectorCache(path, 4) as cache:
        cache.put(keys(2_000), vectors(2_000), np.ones(2_000, np.int32))
    _spoil(path, "cut")
    with VectorCache(path, 4, note=told.append) as cache:
        cache.put(keys(2_000), vectors(2_000), np.ones(2_000, np.int32))
        assert len(cache.get(keys(2_000))) == 2_000
    assert len(told) == 1


def test_a_file_that_another_process_has_set_aside_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "k.sqlite"
    with VectorCache(path, 4) as cache:
        cache.put(keys(2_000), vectors(2_000), np.ones(2_000, np.int32))
    _spoil(path, "cut")
    with VectorCache(path, 4) as one, VectorCache(path, 4) as other:
        one.put(keys(2_000), vectors(2_000), np.ones(2_000, np.int32))
        assert len(other.get(keys(2_000))) == 2_000
    assert len(list(tmp_path.glob("k.sqlite.damaged-*[0-9]"))) == 1
