"""A million records: in flat memory, and the second backup costs what changed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

SCRIPT = """
import json, resource, sys
from pathlib import Path

import numpy as np
import pyarrow as pa

from reembed.backup.directory import folder_of
from reembed.backup.take import Subject, Wanted, take
from reembed.progress import Progress
from reembed.records import SHARD_ROWS, export_batch, vectors_to_list_array
from reembed.stores.store import Store
from reembed.stores.values import CollectionInfo

COUNT, D = int(sys.argv[1]), 64


class Made:
    # Records that are computed when they are asked for; of `changed` one of a hundred is another.
    changed = False

    def resolve(self):
        return CollectionInfo("docs", "docs", COUNT, D, "cosine")

    def describe(self, name):
        return self.resolve()

    def collections(self):
        return ["docs"]

    def list_ids(self, id, where=None):
        for start in range(0, COUNT, SHARD_ROWS):
            yield pa.array([f"doc-{n:09d}" for n in range(start, min(COUNT, start + SHARD_ROWS))])

    def fetch(self, id, ids, *, vectors, where=None):
        numbers = [int(one[4:]) for one in ids]
        versions = [int(self.changed and n * 7919 % 100 == 0) for n in numbers]
        texts = [f"text {n} of version {v}, " * 4 for n, v in zip(numbers, versions)]
        seeds = np.asarray(numbers)[:, None] * 31 + np.asarray(versions)[:, None]
        made = np.sin(seeds * np.linspace(0.1, 0.9, D)).astype(np.float32)
        return export_batch(
            ids, texts, ["null"] * len(ids), [None] * len(ids), vectors_to_list_array(made)
        )

    def count(self, id):
        return COUNT


made = Made()
store = Store("chroma:made", made, made)
folder = folder_of(Path(sys.argv[2]), "docs")
size = lambda: sum(path.stat().st_size for path in folder.path.rglob("*") if path.is_file())
first = take(Subject(store, "chroma:made", "docs"), folder, Wanted(), Progress())
bytes_of_first = size()
made.changed = True
second = take(Subject(store, "chroma:made", "docs"), folder, Wanted(), Progress())
print(json.dumps({
    "first": bytes_of_first, "second": size() - bytes_of_first, "changed": second.changed,
    "rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
}))
"""


def taken(records: int, folder: Path) -> dict[str, int]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(records), str(folder)],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    found: dict[str, int] = json.loads(done.stdout)
    return found


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_million_records_stream_and_a_second_backup_costs_what_changed(tmp_path: Path) -> None:
    few, many = taken(100_000, tmp_path / "few"), taken(1_000_000, tmp_path / "many")
    assert many["changed"] == 10_000
    assert many["second"] <= 0.05 * many["first"], many
    assert many["rss"] - few["rss"] <= 100, (few, many)  # MB, for ten times as many
