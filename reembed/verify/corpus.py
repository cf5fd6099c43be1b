"""A finished run read back: the records that count now, shard by shard, each shard held once.

A record may stand in several shards (a delta replaces what an older shard says); the ledger knows
which one speaks for it, and everything here passes over the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from reembed.manifest.template import TEXT_COLUMNS, TextTemplate
from reembed.progress import stage
from reembed.quality.search import Block
from reembed.records import (
    Vectors,
    bad_rows,
    fixed_array_to_vectors,
    list_array_to_vectors,
    metadata_object,
)
from reembed.run.directory import RunDir, Shard
from reembed.run.ledger import Ledger

PAGE_COLUMNS = ("id", "text_sha256", "embedding")


@dataclass(frozen=True)
class Page:
    """The records that a shard speaks for, or a part of them.

    Attributes:
        ids: `n` record ids.
        rows: their row hashes, as exported.
        keys: hashes of the texts that were embedded.
        texts: what the template gives for the exported records now.
        vectors: `(n, d) float32`, as embedded.
    """

    ids: list[str]
    rows: list[bytes]
    keys: list[bytes]
    texts: list[str]
    vectors: Vectors

    def at(self, rows: Sequence[int]) -> Page:
        """Some of its rows."""
        return Page(
            [self.ids[row] for row in rows], [self.rows[row] for row in rows],
            [self.keys[row] for row in rows], [self.texts[row] for row in rows],
            self.vectors[list(rows)],
        )  # fmt: skip


@dataclass(frozen=True)
class Record:
    """One record, for a person to look at.

    Attributes:
        key: hash of its text.
        text: as embedded, before the model's prefix.
        metadata: parsed.
    """

    key: bytes
    text: str
    metadata: dict[str, Any]


class Corpus:
    """The records of a run.

    Args:
        ledger: of the same run.
        template: gives a record's text.
    """

    def __init__(self, run: RunDir, ledger: Ledger, template: TextTemplate) -> None:
        self._run, self._ledger, self._template = run, ledger, template
        self.exports = run.shards("export")
        self.embeds = run.shards("embed")
        shards = [*self.exports.values(), *self.embeds.values()]
        self.made_of = {shard.name: shard.sha256 for shard in shards}, ledger.counts()
        """Of equal ones all that can be found here is equal."""

    @property
    def rows(self) -> int:
        """Rows of all embed shards, older versions of records among them."""
        return sum(shard.rows for shard in self.embeds.values())

    def damaged(self, stem: str) -> list[str]:
        """Names of this stem's files that are gone or changed since they were journalled."""
        shards = (self.exports.get(stem), self.embeds[stem])
        return [shard.name for shard in shards if shard and not self._run.is_whole(shard)]

    def page(self, stem: str) -> Page:
        """What a shard speaks for."""
        embeds = self._run.read_shard(self.embeds[stem], PAGE_COLUMNS)
        return self._page(_among(embeds, self._ledger.current(stem)), self._exports(stem))

    def pages(self, stem: str, rows: range) -> Iterator[Page]:
        """What a shard speaks for, of these rows of its embed shard, a part at a time."""
        exports, current, start = self._exports(stem), self._ledger.current(stem), 0
        for part in self._run.shard_parts(self.embeds[stem], PAGE_COLUMNS):
            mine = range(max(rows.start, start), min(rows.stop, start + len(part)))
            if mine:
                own = part.slice(mine.start - start, len(mine))
                yield self._page(_among(own, current), exports)
            start += len(part)

    def _exports(self, stem: str) -> pa.Table:
        return self._run.read_shard(self.exports[stem], [*TEXT_COLUMNS, "row_sha256"])

    def _page(self, embeds: pa.Table, exports: pa.Table) -> Page:
        ids = embeds.column("id").to_pylist()
        exports = _in_order(exports, ids)
        return Page(
            ids, exports.column("row_sha256").to_pylist(), embeds.column("text_sha256").to_pylist(),
            self._template.texts_of(exports), fixed_array_to_vectors(embeds.column("embedding")),
        )  # fmt: skip

    def tokens(self) -> Iterator[tuple[str, list[str], npt.NDArray[np.int32]]]:
        """For each shard the ids it speaks for, in its order, and the tokens of their texts."""
        for stem, shard in self.embeds.items():
            table = self._run.read_shard(shard, ["id", "tokens"])
            table = _among(table, self._ledger.current(stem))
            ids = table.column("id").to_pylist()
            yield stem, ids, np.asarray(table.column("tokens"), np.int32)

    def records(self, ids: Iterable[str]) -> dict[str, Record]:
        """These records, in shard order; ids that are unknown or quarantined are left out."""
        by_shard: dict[str, list[str]] = {}
        for id, entry in self._ledger.lookup(sorted(set(ids))).items():
            if not entry.quarantined:
                by_shard.setdefault(entry.shard, []).append(id)
        found: dict[str, Record] = {}
        for stem in self.embeds:
            if wanted := set(by_shard.get(stem, ())):
                found |= self._records(stem, wanted)
        return found

    def _records(self, stem: str, wanted: set[str]) -> dict[str, Record]:
        keys = self._run.read_shard(self.embeds[stem], ["id", "text_sha256"])
        keys = _among(keys, wanted)
        exports = self._run.read_shard(self.exports[stem], TEXT_COLUMNS)
        exports = _in_order(exports, keys.column("id").to_pylist())
        return {
            id: Record(key, text, metadata_object(metadata))
            for id, key, text, metadata in zip(
                keys.column("id").to_pylist(), keys.column("text_sha256").to_pylist(),
                self._template.texts_of(exports), exports.column("metadata").to_pylist(),
                strict=True,
            )
        }  # fmt: skip

    def known(self, ids: Iterable[str]) -> set[str]:
        """Those of these ids that the source has, quarantined ones too."""
        return set(self._ledger.lookup(sorted(set(ids))))

    def new_blocks(self, only: set[str] | None = None) -> Iterator[Block]:
        """Every record, or only those of some ids, with its new vector."""
        for stem, shard in _counted("read the new vectors", self.embeds):
            current = self._ledger.current(stem)
            wanted = current if only is None else current & only
            for part in self._run.shard_parts(shard, PAGE_COLUMNS) if wanted else ():
                table = _among(part, wanted)
                ids = table.column("id").to_pylist()
                vectors = fixed_array_to_vectors(table.column("embedding"))
                fine = ~bad_rows(vectors)  # the integrity gate tells of those that are not
                yield _block(ids, table.column("text_sha256").to_pylist(), vectors, fine)

    def old_blocks(self, only: set[str] | None = None) -> Iterator[Block]:
        """Every record, or only those of some ids, with its old vector, quarantined ones too: the
        old collection finds them.

        Records without a usable old vector are left out. The key of a quarantined record is its own
        row hash, since no text of it was embedded.
        """
        for stem, shard in _counted("read the old vectors", self.exports):
            keys = self._shard_keys(stem)
            for part in self._run.shard_parts(shard, ["id", "row_sha256", "embedding"]):
                table = part if only is None else _among(part, only)
                entries = self._ledger.lookup(table.column("id").to_pylist())
                table = _among(table, {id for id, one in entries.items() if one.shard == stem})
                vectors, present = list_array_to_vectors(table.column("embedding"))
                table = table.select(["id", "row_sha256"]).filter(pa.array(present))
                ids = table.column("id").to_pylist()
                rows = table.column("row_sha256").to_pylist()
                of = [keys.get(id, row) for id, row in zip(ids, rows, strict=True)]
                yield _block(ids, of, vectors, ~bad_rows(vectors))

    def has_old_vectors(self) -> bool:
        """Whether any record has an old vector."""
        columns = (
            part.column("embedding")
            for shard in self.exports.values()
            for part in self._run.shard_parts(shard, ["embedding"])
        )
        return any(column.null_count < len(column) for column in columns)

    def _shard_keys(self, stem: str) -> dict[str, bytes]:
        shard: Shard | None = self.embeds.get(stem)
        if shard is None:
            return {}
        table = self._run.read_shard(shard, ["id", "text_sha256"])
        ids, keys = table.column("id").to_pylist(), table.column("text_sha256").to_pylist()
        return dict(zip(ids, keys, strict=True))

    def vectors(self, ids: Sequence[str]) -> tuple[dict[str, Vectors], dict[str, Vectors]]:
        """New and old vectors `(d,) float32` of these records, as far as they have usable ones."""
        wanted = set(ids)
        found: tuple[dict[str, Vectors], dict[str, Vectors]] = ({}, {})
        both = self.new_blocks(wanted), self.old_blocks(wanted)
        for place, blocks in zip(found, both, strict=True):
            for block in blocks:
                place.update(zip(block.ids, block.vectors, strict=True))
        return found


def _counted(name: str, shards: dict[str, Shard]) -> Iterator[tuple[str, Shard]]:
    """Each shard by its stem, counted as a stage."""
    with stage(name, sum(shard.rows for shard in shards.values())) as counter:
        for stem, shard in shards.items():
            yield stem, shard
            counter.update(shard.rows)


def _among(table: pa.Table, ids: set[str]) -> pa.Table:
    """The rows of these ids; the table itself, and no copy of its vectors, where it is all."""
    listed = table.column("id").to_pylist()
    if ids.issuperset(listed):
        return table
    return table.filter(pa.array(np.fromiter((id in ids for id in listed), bool, len(listed))))


def _in_order(table: pa.Table, ids: Sequence[str]) -> pa.Table:
    """The rows of these ids, in their order."""
    place = {id: row for row, id in enumerate(table.column("id").to_pylist())}
    return table.take(pa.array([place[id] for id in ids], pa.int64()))


def _block(
    ids: list[str], keys: list[bytes], vectors: Vectors, fine: npt.NDArray[np.bool_]
) -> Block:
    if fine.all():
        return Block(ids, keys, vectors)
    rows = np.flatnonzero(fine).tolist()
    return Block([ids[row] for row in rows], [keys[row] for row in rows], vectors[rows])
