"""What a disk does to a run directory while nobody looks."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

from reembed.run.directory import RunDir


def _torn_line(run: RunDir, chance: random.Random) -> None:
    with run.journal.path.open("ab") as file:
        file.write(b'{"t": 1, "event": "shard", "stage": "emb'[: chance.randint(1, 40)])


def _half_temp_shard(run: RunDir, chance: random.Random) -> None:
    shard = _shard(run, chance)
    data = shard.read_bytes()
    shard.with_name(f".{shard.name}.4194999.tmp").write_bytes(data[: len(data) // 2])


def _flipped_bit(run: RunDir, chance: random.Random) -> None:
    shard = _shard(run, chance)
    data = bytearray(shard.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    shard.write_bytes(data)


def _deleted_shard(run: RunDir, chance: random.Random) -> None:
    _shard(run, chance).unlink()


def _deleted_ledger(run: RunDir, chance: random.Random) -> None:
    for file in run.path.glob("ledger.sqlite*"):
        file.unlink()


def _truncated_ledger(run: RunDir, chance: random.Random) -> None:
    ledger = run.path / "ledger.sqlite"
    if ledger.exists():
        _cut(ledger, chance)


def _truncated_cache(run: RunDir, chance: random.Random) -> None:
    for cache in (run.path.parents[1] / "cache").glob("*.vectors"):
        _cut(cache, chance)


def _deleted_cache(run: RunDir, chance: random.Random) -> None:
    shutil.rmtree(run.path.parents[1] / "cache", ignore_errors=True)


def _damaged_ids(run: RunDir, chance: random.Random) -> None:
    _cut(run.path / "ids.parquet", chance)


def _cut(path: Path, chance: random.Random) -> None:
    with path.open("r+b") as file:
        file.truncate(chance.randrange(path.stat().st_size))


def _shard(run: RunDir, chance: random.Random) -> Path:
    """An embed shard, or an export shard whose records are still what they were."""
    stage = chance.choice(["embed", "export"])
    shards = sorted((run.path / stage).glob("*.parquet"))
    return chance.choice(shards or sorted((run.path / "export").glob("*.parquet")))


HARMS: dict[str, Callable[[RunDir, random.Random], None]] = {
    "torn journal line": _torn_line,
    "half-written temporary shard": _half_temp_shard,
    "shard with a flipped bit": _flipped_bit,
    "deleted shard": _deleted_shard,
    "deleted ledger": _deleted_ledger,
    "truncated ledger": _truncated_ledger,
    "truncated cache": _truncated_cache,
    "deleted cache": _deleted_cache,
    "truncated list of ids": _damaged_ids,
}
