"""A shard is read a part at a time: the same rows, and little memory beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from reembed.errors import DamagedError
from reembed.records import embed_schema, fixed_array_to_vectors, vectors_to_fixed_array
from reembed.run.directory import RunDir
from reembed.run.shards import PART_BYTES, Shard

ROWS, DIMENSIONS = 5_000, 1_000
VECTORS = np.random.default_rng(1).normal(size=(ROWS, DIMENSIONS)).astype(np.float32)
COLUMNS = ("embedding", "id")


def made(folder: Path, rows: int = ROWS) -> tuple[RunDir, Shard]:
    run = RunDir.create(folder, "name: x\n", {})
    table = pa.table(
        [[f"r{row}" for row in range(rows)], pa.array([bytes(32)] * rows, pa.binary(32)),
         pa.array([1] * rows, pa.int32()), vectors_to_fixed_array(VECTORS[:rows])],
        schema=embed_schema(DIMENSIONS),
    )  # fmt: skip
    return run, run.write_shard("embed", "shard-00000", table)


def test_the_parts_are_the_shard(tmp_path: Path) -> None:
    run, shard = made(tmp_path)
    parts = list(run.shard_parts(shard, COLUMNS))
    assert len(parts) >= VECTORS.nbytes // PART_BYTES
    assert max(part.nbytes for part in parts) < 1.5 * PART_BYTES
    whole = run.read_shard(shard, COLUMNS)
    assert pa.concat_tables(parts).equals(whole)
    assert whole.column_names == [*COLUMNS] and len(whole) == ROWS
    assert (fixed_array_to_vectors(whole.column("embedding")) == VECTORS).all()
    assert run.read_shard(shard).schema.equals(embed_schema(DIMENSIONS))


def test_a_shard_without_a_row_has_its_columns(tmp_path: Path) -> None:
    run, shard = made(tmp_path, 0)
    assert run.read_shard(shard, COLUMNS).column_names == [*COLUMNS]
    assert sum(map(len, run.shard_parts(shard, COLUMNS))) == 0


@pytest.mark.parametrize("harm", ["gone", "cut"])
def test_a_damaged_shard_is_told_whichever_way_it_is_read(tmp_path: Path, harm: str) -> None:
    run, shard = made(tmp_path)
    path = run.path / shard.name
    if harm == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: -(1 << 20)])
    with pytest.raises(DamagedError):
        list(run.shard_parts(shard, COLUMNS))
    with pytest.raises(DamagedError):
        run.read_shard(shard, COLUMNS)


def test_damage_that_comes_while_a_shard_is_read_is_told(tmp_path: Path) -> None:
    run, shard = made(tmp_path)
    parts = run.shard_parts(shard, COLUMNS)
    assert len(next(parts))
    with (run.path / shard.name).open("r+b") as file:
        file.truncate(1 << 20)
    with pytest.raises(DamagedError):
        list(parts)
