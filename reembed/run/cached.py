"""What files of paid vectors hold, without writing to them."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reembed.records import Vectors
from reembed.run import vector_file
from reembed.run.earlier_cache import EARLIER, earlier_vectors
from reembed.run.sqlite import files_of
from reembed.run.vector_file import Index

SUFFIX = ".vectors"
"""Of the files' names."""

Known = Mapping[bytes, tuple[Vectors, int]]
"""Text hashes with their `(d,) float32` vectors and tokens."""


@dataclass(frozen=True)
class Lender:
    """The cache of the same model under another `on_too_long` or `max_tokens`, which change the
    vectors of long texts alone.

    Attributes:
        path: its file, which is only read.
        limit: the tokens of a text up to which it is embedded whole now.
        cuts: whether the file may hold vectors of texts that were cut, by us or after the server
            had refused them whole: of these fewer tokens were sent than they have.
    """

    path: Path
    limit: int
    cuts: bool = False

    def short(self, hashes: Sequence[bytes], tokens: Sequence[int]) -> dict[bytes, int]:
        """Those of these texts that are short enough, with their tokens, in the file or not."""
        pairs = zip(hashes, tokens, strict=True)
        return {key: count for key, count in pairs if count <= self.limit}

    def lends(self, sent: int, tokens: int) -> bool:
        """Whether what is in the file, for which so many tokens were sent, is of the whole text."""
        return not self.cuts or sent == tokens


def caches_in(folder: Path) -> list[Path]:
    """The caches in a folder, by the paths that they have, or will have once they are written to:
    those of an earlier version are still to be found beside."""
    found = [path for suffix in (SUFFIX, EARLIER) for path in folder.glob(f"*{suffix}")]
    return sorted({path.with_suffix(SUFFIX) for path in found})


def cache_files(path: Path) -> list[Path]:
    """A cache's own files, there or not: it, what an earlier version kept, and whose they are."""
    return [path, *files_of(path.with_suffix(EARLIER)), path.with_suffix(".model.json")]


def known_hashes(
    path: Path, hashes: Sequence[bytes], tokens: Sequence[int], lenders: Sequence[Lender] = ()
) -> set[bytes]:
    """Which of these text hashes a cache file or its lenders know, for an estimate: looks without
    writing, and knows nothing where the file is not there or cannot be read now.

    Args:
        tokens: of each text, or more.
    """
    found: set[bytes] = set()
    for lender in (Lender(path, sys.maxsize), *lenders):
        short = lender.short(hashes, tokens)
        sent = {key: count for key, (_, count) in looked_up(lender.path, [*short], None).items()}
        found.update(key for key, count in sent.items() if lender.lends(count, short[key]))
    return found


def looked_up(
    path: Path, hashes: Sequence[bytes], dimensions: int | None
) -> dict[bytes, tuple[Vectors, int]]:
    """What a file has of these texts, read without a word to whoever writes it.

    Args:
        dimensions: of the vectors; None for those of any, which are then left empty.
    """
    known: dict[bytes, tuple[Vectors, int]] = {}
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY)
        try:
            index = Index()
            for rows in vector_file.scan(fd, 0, dimensions).rows:
                index.add(rows)
            known = vectors_in(fd, index, hashes, dimensions)
        finally:
            os.close(fd)
    return known | earlier_vectors(path, hashes, known, dimensions)


def vectors_in(
    fd: int, index: Index, hashes: Sequence[bytes], dimensions: int | None
) -> dict[bytes, tuple[Vectors, int]]:
    """What an indexed file has of these texts; `dimensions` as for `looked_up`."""
    if not hashes:
        return {}
    which, rows = index.find(hashes)
    if dimensions is None:
        none = np.zeros(0, np.float32)
        return {
            hashes[one]: (none, count)
            for one, count in zip(which, rows.tokens.tolist(), strict=True)
        }
    found = vector_file.read_rows(fd, rows, hashes, which, dimensions)
    return {
        hashes[one]: (vector, tokens)
        for one, vector, tokens in zip(
            found.which, found.vectors, found.tokens.tolist(), strict=True
        )
    }
