"""Kill a process before a step: a write that is made durable, a file that is renamed or removed, a
line of a journal, a call of Chroma's that writes, a statement of Postgres."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any


def killed() -> None:
    """End this process at once."""
    os.kill(os.getpid(), signal.SIGKILL)


def count_steps(at: int, counted: Path, then: Callable[[], None] = killed) -> None:
    """From now on each step is counted, and before the `at`-th this process is killed; 0 for never.

    Args:
        counted: a file that holds the number of steps made so far.
        then: what happens before that step instead.
    """
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1
        counted.write_text(str(steps))
        if steps == at:
            then()

    _hook(step)


def small_shards(rows: int) -> None:
    """Snapshots of this process have shards of so many records, and restores write so many in a
    go."""
    import reembed.backup.restore
    import reembed.backup.shards

    reembed.backup.shards.SHARD_ROWS = rows  # type: ignore[attr-defined]
    reembed.backup.restore.SHARD_ROWS = rows  # type: ignore[attr-defined]


def _hook(step: Callable[[], None]) -> None:
    import chromadb.api.rust
    import psycopg

    from reembed.stores.chroma import sqlite as chroma_sqlite

    def stepping(place: Any, name: str) -> None:
        original = getattr(place, name)

        def stepped(*arguments: Any, **options: Any) -> Any:
            step()
            return original(*arguments, **options)

        setattr(place, name, stepped)

    for name in ("fsync", "replace", "rename", "unlink", "rmdir", "mkdir"):
        stepping(os, name)
    stepping(chroma_sqlite, "exchange")
    for name in ("create_collection", "delete_collection", "_add", "_update", "_upsert", "_delete"):
        stepping(chromadb.api.rust.RustBindingsAPI, name)
    for name in ("execute", "executemany", "copy"):
        stepping(psycopg.Cursor, name)
    stepping(psycopg.Connection, "commit")
