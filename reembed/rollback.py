"""The way back, with what was written since the swap.

Rows go back by comparison: what the new collection holds otherwise than the ledger says was written
since the swap. What has gone back is kept in a file, so that the same comparison finds writes that
came to the new collection even later, through handles that an application still holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from reembed.difference import find_difference, foreign_stems, refuse_collapse
from reembed.disk import atomic_file
from reembed.embedders.embedder import Embedder
from reembed.errors import DamagedError, PreflightError, SourceChangedError
from reembed.ledger import Ledger
from reembed.records import (
    SHARD_ROWS,
    Vectors,
    chunked,
    cosine_rows,
    list_array_to_vectors,
    text_hash,
)
from reembed.rundir import RunDir
from reembed.stores.base import Store
from reembed.template import TextTemplate
from reembed.vector_cache import VectorCache

CARRIED_FILE = "carried-back.parquet"
CARRIED_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("new_sha256", pa.binary(32)),
        pa.field("old_sha256", pa.binary(32)),
    ]
)
"""Row hashes of a record in the new and in the old collection after it was carried back; null where
it is not there."""

LIVE_ROWS = 50
"""Rows written to the old collection between two looks at what was written there meanwhile."""
OLD_MODEL_SAMPLE = 16
OLD_MODEL_COSINE = 0.99
"""A model that gives the old collection's own texts other vectors is not the old model."""

DOCUMENT = TextTemplate("{document}")

Hashes = tuple[bytes | None, bytes | None]
OldModel = Callable[[], tuple[Embedder | None, str]]
"""The old model, opened only if a row must be embedded; None with the reason why there is none."""


@dataclass
class CarriedBack:
    """What went back.

    Attributes:
        carried: rows written to or deleted from the old collection.
        lost: ids of rows that cannot go back and were accepted as lost.
        conflicts: ids that both collections have changed: the live one's version stays.
        left: ids of rows that cannot go back and were left where they are.
    """

    carried: int = 0
    lost: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def add(self, more: CarriedBack) -> None:
        """Count what went back in another round, too."""
        self.carried += more.carried
        self.lost = sorted({*self.lost, *more.lost})
        self.conflicts = sorted({*self.conflicts, *more.conflicts})
        self.left = more.left


@dataclass
class WayBack:
    """The two collections of a swap, and what it takes to bring rows from new to old."""

    run: RunDir
    new_store: Store
    new_id: str
    old_store: Store
    old_id: str
    ledger: Ledger
    template: TextTemplate
    old_model: OldModel
    old_cache: Callable[[], VectorCache]
    _why: str = ""

    def carry(self, accept_loss: bool) -> CarriedBack:
        """Carry what was written since the swap into the old collection, before it goes live.

        Deletions are carried, rows whose text is unchanged keep their old vector, other rows are
        embedded with the old model. The new collection is right where both were changed.

        Raises:
            PreflightError: rows would be lost, and `accept_loss` is not given.
            SourceChangedError: the new collection lost most of its records, and `accept_loss` is
                not given (with it, deletions are not carried then).
        """
        known = self._read_carried()
        changed, deleted = self._written(known)
        spared: list[str] = []
        try:
            refuse_collapse("the live collection", len(deleted), len(changed), self.ledger)
        except SourceChangedError as error:
            if not accept_loss:
                raise SourceChangedError(
                    f"{error.message.replace('the export', 'the swap')}; rolling back would delete "
                    "them from the old collection too",
                    "With --accept-loss the old collection comes back as it was, with those "
                    "records.",
                ) from None
            spared, deleted = deleted, []
        if not accept_loss:
            self._refuse_unless_carriable(changed)
        for part in chunked(spared, SHARD_ROWS):
            there = _hashes(self.old_store, self.old_id, part)
            known |= {id: (None, there.get(id)) for id in part}
        conflicts = self._conflicts([*changed, *deleted], known)
        done = self._carry(changed, deleted, known, accept_loss)
        done.conflicts = sorted(conflicts)
        return done

    def carry_late(self) -> CarriedBack:
        """Carry what came to the new collection after that. The old one, live again, is right where
        both were changed, and rows that cannot go back are left."""
        known = self._read_carried()
        changed, deleted = self._written(known)
        conflicts = self._conflicts([*changed, *deleted], known)
        done = self._carry(
            [id for id in changed if id not in conflicts],
            [id for id in deleted if id not in conflicts],
            known,
            None,
        )
        done.conflicts = sorted({*conflicts, *done.conflicts})
        return done

    def late(self) -> list[str]:
        """Ids written to the new collection after the way back, which the old one lacks."""
        known = self._read_carried()
        ids = [id for part in self._written(known) for id in part]
        conflicts = self._conflicts(ids, known)
        return [id for id in ids if id not in conflicts]

    # What was written

    @cached_property
    def foreign(self) -> set[str]:
        """Shards of records that the old collection never had."""
        return foreign_stems(self.run)

    @property
    def logged(self) -> bool:
        """Whether the store logs what is written to the new collection, so that a look is cheap."""
        swapped = self.run.last("swap-done")
        return swapped is not None and swapped["receipt"].get("mark") is not None

    def _written(self, known: dict[str, Hashes]) -> tuple[list[str], list[str]]:
        """Ids changed in and deleted from the new collection since they were last carried."""
        swapped = self.run.last("swap-done")
        found = find_difference(
            self.new_store, self.new_id, None, self.ledger, include_quarantined=False,
            since=swapped["receipt"].get("mark") if swapped else None,
        )  # fmt: skip
        merged = [id for stem in sorted(self.foreign) for id in sorted(self.ledger.current(stem))]
        ids = list(dict.fromkeys([*found.changed, *found.deleted, *merged, *known]))
        changed, deleted = list[str](), list[str]()
        for part in chunked(ids, SHARD_ROWS):
            now = _hashes(self.new_store, self.new_id, part)
            for id, (before, _) in self._carried(part, known).items():
                if now.get(id) != before:
                    (changed if id in now else deleted).append(id)
        return self._unlike(changed), deleted

    def _unlike(self, changed: list[str]) -> list[str]:
        """Of the ids changed in the new collection, those that are not the same in the old one: a
        quarantined row that a table kept, or one that was written to both."""
        unlike: list[str] = []
        for part in chunked(changed, SHARD_ROWS):
            new = _hashes(self.new_store, self.new_id, part)
            old = _hashes(self.old_store, self.old_id, part)
            unlike += [id for id in part if new.get(id) != old.get(id)]
        return unlike

    def _carried(self, ids: Iterable[str], known: dict[str, Hashes]) -> dict[str, Hashes]:
        """The hashes these ids had in both collections when they were last equal."""
        ids = list(ids)
        entries = self.ledger.lookup(ids)
        hashes: dict[str, Hashes] = {}
        for id in ids:
            entry = entries.get(id)
            row = entry.row_sha256 if entry and entry.shard not in self.foreign else None
            hashes[id] = known.get(id, (None if entry and entry.quarantined else row, row))
        return hashes

    def _conflicts(self, ids: list[str], known: dict[str, Hashes]) -> set[str]:
        """Of these ids, those that the old collection has changed itself, and otherwise."""
        found = set()
        last = self.run.last("carry-begun", "carry-done")
        # Replacing a row deletes it first: one that a killed call left missing is ours to restore.
        interrupted = last is not None and last["event"] == "carry-begun"
        for part in chunked(ids, SHARD_ROWS):
            new = _hashes(self.new_store, self.new_id, part)
            old = _hashes(self.old_store, self.old_id, part)
            found |= {
                id
                for id, (_, before) in self._carried(part, known).items()
                if old.get(id) not in (before, new.get(id)) and not (interrupted and id not in old)
            }
        return found

    # Carrying

    def _carry(
        self,
        changed: list[str],
        deleted: list[str],
        known: dict[str, Hashes],
        accept_loss: bool | None,
    ) -> CarriedBack:
        """Write rows and deletions. `accept_loss` None leaves rows that cannot go back.

        What is noted as carried is what was read, never what is there by the end: a row that is
        written to meanwhile is found again by the next comparison.
        """
        done = CarriedBack(carried=len(deleted))
        pairs = dict[str, Hashes].fromkeys(deleted, (None, None))
        if changed or deleted:
            self.run.journal.append("carry-begun", changed=len(changed), deleted=len(deleted))
        for ids in chunked(deleted, SHARD_ROWS):
            self.old_store.delete(self.old_id, ids)
        for ids in chunked(changed, SHARD_ROWS):
            rows = self.new_store.fetch(self.new_id, ids, vectors=False)
            vectors, usable = self._old_vectors(rows)
            names = rows.column("id").to_pylist()
            unusable = [id for id, ok in zip(names, usable, strict=True) if not ok]
            if unusable and accept_loss is False:
                raise self._refusal(unusable)
            (done.left if accept_loss is None else done.lost).extend(unusable)
            now = dict(zip(names, rows.column("row_sha256").to_pylist(), strict=True))
            if accept_loss is not None:
                there = _hashes(self.old_store, self.old_id, unusable)
                pairs |= {id: (now[id], there.get(id)) for id in unusable}
            for start in range(0, len(names), LIVE_ROWS):
                part = np.zeros(len(names), bool)
                part[start : start + LIVE_ROWS] = usable[start : start + LIVE_ROWS]
                ids = [names[row] for row in np.flatnonzero(part)]
                if accept_loss is None:  # embedding took its time: look again before writing
                    newer = self._conflicts(ids, known)
                    done.conflicts += sorted(newer)
                    part &= np.array([id not in newer for id in names], bool)
                    ids = [id for id in ids if id not in newer]
                if ids:
                    self.old_store.replace(self.old_id, rows.filter(part), vectors[part])
                pairs |= {id: (now[id], now[id]) for id in ids}
                done.carried += len(ids)
        self._write_carried(known | pairs)
        if changed or deleted:
            self.run.journal.append("carry-done", carried=done.carried)
        return done

    def _refuse_unless_carriable(self, changed: list[str]) -> None:
        """Look before the first write whether every row keeps its vector or can get one."""
        homeless: list[str] = []
        for ids in chunked(changed, SHARD_ROWS):
            rows = self.new_store.fetch(self.new_id, ids, vectors=False)
            there = self.old_store.fetch(self.old_id, ids, vectors=True)
            kept = self._texts(there.filter(there.column("embedding").is_valid()))
            needy = set(self._texts(rows)).difference(kept)
            homeless += sorted(id for id, *_ in needy)
        if homeless and self.old_template is None:
            raise self._refusal(homeless)

    def _refusal(self, ids: list[str]) -> PreflightError:
        why = self._why or "the old model refuses their texts"
        return PreflightError(
            f"{len(ids):,} rows written since the swap cannot go back, e.g. "
            f"{', '.join(ids[:5])}: {why}",
            "Give the old model as source.model, or accept losing them with --accept-loss.",
        )

    def _old_vectors(self, rows: pa.RecordBatch) -> tuple[Vectors, npt.NDArray[np.bool_]]:
        """Old-model vectors for rows, `(n, d) float32`, and which there are, `(n,) bool`."""
        ids = rows.column("id").to_pylist()
        there = self.old_store.fetch(self.old_id, ids, vectors=True)
        old_vectors, present = list_array_to_vectors(there.column("embedding"))
        kept = [key for key, ok in zip(self._texts(there), present, strict=True) if ok]
        place = {key: row for row, key in enumerate(kept)}
        info = self.old_store.describe_id(self.old_id)
        vectors = np.zeros((len(ids), (info.dimensions or 0) if info else 0), np.float32)
        usable = np.zeros(len(ids), bool)
        todo = []
        for row, key in enumerate(self._texts(rows)):
            if key in place:
                vectors[row], usable[row] = old_vectors[place[key]], True
            else:
                todo.append(row)
        if todo and self.old_template is not None:
            embedder, _ = self.old_model()
            assert embedder is not None, "there is no text for it without a model"
            texts = _texts(rows, self.old_template)
            vectors[todo], usable[todo] = _embed(
                embedder, self.old_cache(), [texts[row] for row in todo]
            )
        return vectors, usable

    def _texts(self, rows: pa.RecordBatch) -> list[tuple[str, str, str]]:
        """What decides an old vector, whichever text the application embeds."""
        ids = rows.column("id").to_pylist()
        return list(zip(ids, _texts(rows, self.template), _texts(rows, DOCUMENT), strict=True))

    @cached_property
    def old_template(self) -> TextTemplate | None:
        """The text that the old model embeds: the manifest's, or the document alone, whichever
        gives the vectors that the old collection holds. None without a model that gives them."""
        embedder, self._why = self.old_model()
        if embedder is None:
            return None
        first = next(iter(self.old_store.list_ids(self.old_id)), None)
        ids = first.to_pylist() if first is not None else []
        ids = ids[:: max(1, len(ids) // (4 * OLD_MODEL_SAMPLE))]
        rows = self.old_store.fetch(self.old_id, ids, vectors=True)
        rows = rows.filter(rows.column("embedding").is_valid())
        best = 0.0
        for template in (self.template, DOCUMENT):
            texts = _texts(rows, template)
            chosen = [row for row, text in enumerate(texts) if text.strip()][:OLD_MODEL_SAMPLE]
            if not chosen:
                continue
            expected, _ = list_array_to_vectors(rows.take(pa.array(chosen)).column("embedding"))
            embedded = embedder.embed_documents([texts[row] for row in chosen])
            cosine = float(np.median(cosine_rows(expected, embedded.vectors)))
            if cosine >= OLD_MODEL_COSINE:
                return template
            best = max(best, cosine)
        self._why = (
            f"{embedder.model.provider} {embedder.model.name} is not the model of the old "
            f"collection, whose texts it gives other vectors (cosine {best:.3f})"
        )
        return None

    # The file

    def _read_carried(self) -> dict[str, Hashes]:
        path = self.run.path / CARRIED_FILE
        if not path.is_file():
            return {}
        try:
            columns = pq.read_table(path).to_pydict()
        except (OSError, pa.ArrowException) as error:
            raise DamagedError(
                f"{path}: the list of what went back is damaged: {error}",
                "Move it away and run the same command again: both collections are compared anew.",
            ) from error
        pairs = zip(columns["new_sha256"], columns["old_sha256"], strict=True)
        return dict(zip(columns["id"], pairs, strict=True))

    def _write_carried(self, known: dict[str, Hashes]) -> None:
        columns = [list(known), *([pair[side] for pair in known.values()] for side in (0, 1))]
        with atomic_file(self.run.path / CARRIED_FILE) as file:
            pq.write_table(pa.table(columns, schema=CARRIED_SCHEMA), file)


def _embed(
    embedder: Embedder, cache: VectorCache, texts: Sequence[str]
) -> tuple[Vectors, npt.NDArray[np.bool_]]:
    """Vectors `(n, d) float32`, and which there are, `(n,) bool`. Every batch is kept in the cache,
    so that a rollback killed half-way does not pay for it again."""
    keys = [text_hash(text) for text in texts]
    known = cache.get(keys)
    new = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
    if new:
        wanted = list(new)
        embedder.embed_documents(
            list(new.values()),
            on_batch=lambda indices, vectors, tokens: cache.put(
                [wanted[index] for index in indices], vectors, tokens
            ),
        )
        known = cache.get(keys)
    found = np.zeros((len(texts), embedder.dimensions), np.float32)
    for row, key in enumerate(keys):
        if key in known:
            found[row] = known[key][0]
    return found, np.array([key in known for key in keys], bool)


def _texts(rows: pa.RecordBatch, template: TextTemplate) -> list[str]:
    columns = [rows.column(name).to_pylist() for name in ("id", "document", "metadata", "uri")]
    return template.texts(*columns)


def _hashes(store: Store, collection_id: str, ids: Sequence[str]) -> dict[str, bytes]:
    """Row hash of those of `ids` that are in the collection."""
    rows = store.fetch(collection_id, ids, vectors=False)
    return dict(
        zip(rows.column("id").to_pylist(), rows.column("row_sha256").to_pylist(), strict=True)
    )
