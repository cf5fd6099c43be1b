"""The files of a run beside its journal: what each holds, and what follows if it is lost.

All of them are read through `read`, so that whatever stands in a file's place (damaged bytes, a
folder, a dangling link, a file that may not be read) ends in one of three ways: it is made again,
it is told in a line because only a report shows it, or the command is refused with what to do.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pyarrow as pa

from reembed.errors import DamagedError
from reembed.run.disk import read_errors

Found = TypeVar("Found")

WRONG = (
    ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError,
    EOFError, pa.ArrowException, sqlite3.DatabaseError,
)  # fmt: skip
"""What parsing bytes that another wrote can raise. Within `read` nothing else is at work."""


@dataclass(frozen=True)
class RunFile:
    """One of a run's files.

    Attributes:
        name: relative to the run directory.
        holds: what, for the error.
        hint: what to do where it is lost; `{path}` is filled in.
    """

    name: str
    holds: str
    hint: str


MANIFEST = RunFile(
    "manifest.yaml", "the manifest as the run resolved it",
    "Only the report shows it. Nothing needs to be done.",
)  # fmt: skip
VERDICT = RunFile(
    "verdict.json", "the newest verdict", "`reembed verify` makes it again, and its report."
)
QUARANTINE = RunFile(
    "quarantine.parquet", "the list of quarantined records",
    "Only the report shows it; the next command that embeds makes it again.",
)  # fmt: skip
IDS = RunFile("ids.parquet", "the list of the source's ids", "`reembed run` makes it again.")
CARRIED = RunFile(
    "carried-back.parquet", "the list of what went back",
    "The next rollback or sweep makes it again: both collections are compared again.",
)  # fmt: skip
SPENDING = RunFile(
    "spending.jsonl", "what the run has spent",
    "The disk or another program changed it. Remove the line, or put one with the right "
    '{{"tokens", "usd"}} in its place, and run again.',
)  # fmt: skip


SHARD = RunFile("", "a shard", "")
"""Which one, and what to do, is for `RunDir.damaged` to say."""


def read(path: Path, file: RunFile, parse: Callable[[Path], Found]) -> Found | None:
    """What a file holds, None where there is none.

    Args:
        parse: reads and checks it. Whatever it raises over the file's bytes is damage.

    Raises:
        DamagedError: it is damaged, or no file.
        PreflightError: it may not be read.
    """
    with read_errors(path):
        if not os.path.lexists(path):  # a dangling link is there
            return None
        try:
            if not path.is_file():
                raise ValueError("it is not a file")
            return parse(path)
        except MemoryError:  # Arrow has one of its own, and it says nothing of the file
            raise
        except (*WRONG, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:  # else it is Arrow's own
                raise
            raise damaged(path, file, str(error).partition("\n")[0]) from error


def damaged(path: Path, file: RunFile, how: str) -> DamagedError:
    """The error of a damaged file."""
    return DamagedError(f"{path}: {file.holds} is damaged: {how}", file.hint.format(path=path))
