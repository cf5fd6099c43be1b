"""What a table that a restore makes again does not have of what the snapshot's had."""

from __future__ import annotations

from reembed.backup.restore import Job


def left_out(job: Job) -> list[list[str]]:
    """What hung on a table and is not made again where a restore makes the table: names, and
    definitions to look at."""
    if not _makes_table(job):
        return []
    tables = (job.snapshot.definition or {}).get("tables", [])
    return [list(one) for table in tables for one in table.get("left", [])]


def not_here(job: Job) -> list[list[str]]:
    """What a table that a restore makes cannot have in this store: names, and what adds it."""
    written = job.snapshot.definition
    if not _makes_table(job) or job.store.shapes is None or written is None:
        return []
    return job.store.shapes.missing(written)


def _makes_table(job: Job) -> bool:
    """Whether a restore makes a table from what the snapshot says of it."""
    return job.store.shapes is not None and job.like is None and job.same_kind
