"""Postgres with pgvector."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reembed.stores.registry import open_store
from tests.stores.contract.records import Record
from tests.stores.contract.stores import Entry, Opened, written_by


@contextmanager
def _pgvector(folder: Path, fixture: Callable[[str], Any]) -> Iterator[Opened]:
    store = open_store(fixture("postgres_url"))
    yield written_by(store)
    store.close()


def _holds(record: Record) -> bool:
    """NUL ends a string there."""
    return "\x00" not in (record[1] or "")


STORES = {"pgvector": Entry(_pgvector, holds=_holds)}
