"""Vectors of the old model for rows that go back: those that there are, or new ones."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from reembed.embedders.evidence import DOCUMENT, SAME, SAMPLE, cosine_of
from reembed.manifest.template import TextTemplate
from reembed.records import Vectors, list_array_to_vectors
from reembed.stages.keeping import embed_keeping
from reembed.stages.session import Session

Key = tuple[str, str, str]
"""Id and texts of a record."""


class OldVectors:
    """The old collection of a swap, the run's export shards and the old model."""

    def __init__(self, s: Session) -> None:
        self._session = s
        self.run, self.old, self.ledger, self.template = s.run, s.old.whole, s.ledger, s.template
        self._why = ""

    @cached_property
    def foreign(self) -> set[str]:
        """Shards of records that the old collection never had."""
        return self.run.history.foreign_stems

    def _old_vectors(
        self, rows: pa.RecordBatch, gone: bool = False
    ) -> tuple[Vectors, npt.NDArray[np.bool_]]:
        """Old-model vectors for rows, `(n, d) float32`, and which there are, `(n,) bool`.

        Args:
            gone: those that there are even without these rows of the old collection.
        """
        if self._session.manifest.keeps:
            return _own_vectors(rows, self._session.dimensions)
        ids = rows.column("id").to_pylist()
        kept = self._exported(ids) if gone else self._kept(ids)
        info = self.old.describe()
        vectors = np.zeros((len(ids), (info.dimensions or 0) if info else 0), np.float32)
        usable = np.zeros(len(ids), bool)
        todo = []
        for row, key in enumerate(self._texts(rows)):
            if key in kept:
                vectors[row], usable[row] = kept[key], True
            else:
                todo.append(row)
        if todo and self.old_template is not None:
            embedder = self._session.old_embedder
            assert embedder is not None, "there is no text for it without a model"
            texts = self.old_template.texts_of(rows)
            vectors[todo], usable[todo] = embed_keeping(
                embedder, self._session.old_cache, [texts[row] for row in todo]
            )
        return vectors, usable

    def _needy(self, rows: pa.RecordBatch) -> list[str]:
        """Ids of those rows that take the old model to go back."""
        ids = rows.column("id").to_pylist()
        if self._session.manifest.keeps:
            _, usable = _own_vectors(rows, self._session.dimensions)
            return [id for id, ok in zip(ids, usable, strict=True) if not ok]
        return sorted(id for id, *_ in set(self._texts(rows)).difference(self._kept(ids)))

    @property
    def takes_model(self) -> bool:
        """Whether the old model can give a row a vector."""
        return not self._session.manifest.keeps

    def _kept(self, ids: Sequence[str]) -> dict[Key, Vectors]:
        """The vectors `(d,) float32` that the old collection has of these records, or had before
        they were displaced."""
        there = self.old.fetch(ids, vectors=True)
        missing = set(ids).difference(there.column("id").to_pylist())
        displaced = missing.intersection(self.run.history.displaced_back) if missing else missing
        return self._exported(sorted(displaced)) | self._by_text(there)

    def _exported(self, ids: Sequence[str]) -> dict[Key, Vectors]:
        """The old vectors of these records that the run has exported."""
        stems: dict[str, list[str]] = {}
        for id, entry in self.ledger.lookup(ids).items():
            if entry.shard not in self.foreign:
                stems.setdefault(entry.shard, []).append(id)
        shards = self.run.shards("export") if stems else {}
        found: dict[Key, Vectors] = {}
        for stem, members in stems.items():
            if self.run.is_whole(shards[stem]):
                table = self.run.read_shard(shards[stem])
                table = table.filter(pc.is_in(table.column("id"), pa.array(members, pa.string())))
                for rows in table.combine_chunks().to_batches():
                    found |= self._by_text(rows)
        return found

    def _by_text(self, rows: pa.RecordBatch) -> dict[Key, Vectors]:
        """The vectors of those rows that have one."""
        vectors, present = list_array_to_vectors(rows.column("embedding"))
        keys = [key for key, ok in zip(self._texts(rows), present, strict=True) if ok]
        return dict(zip(keys, vectors, strict=True))

    def _texts(self, rows: pa.RecordBatch) -> list[Key]:
        """What decides an old vector, whichever text the application embeds."""
        ids = rows.column("id").to_pylist()
        return list(zip(ids, self.template.texts_of(rows), DOCUMENT.texts_of(rows), strict=True))

    @cached_property
    def old_template(self) -> TextTemplate | None:
        """The text that the old model embeds: the manifest's, or the document alone, whichever
        gives the vectors that the old collection holds. None without a model that gives them."""
        if self._session.manifest.keeps:
            self._why = f"they have no vector of {self._session.dimensions} dimensions"
            return None
        embedder, self._why = self._session.old_embedder, self._session.old_model_note
        if embedder is None:
            return None
        rows = self.old.some_with_vectors(4 * SAMPLE)
        if not self.old.count():  # as one of several may be: it contradicts nothing
            return self.template
        best = 0.0
        for template in (self.template, DOCUMENT):
            cosine = cosine_of(embedder, rows, template) or 0.0
            if cosine >= SAME:
                return template
            best = max(best, cosine)
        self._why = (
            f"{embedder.model.provider} {embedder.model.name} is not the model of the old "
            f"collection, whose texts it gives other vectors (cosine {best:.3f})"
        )
        return None


def _own_vectors(rows: pa.RecordBatch, dimensions: int) -> tuple[Vectors, npt.NDArray[np.bool_]]:
    """The vectors that rows have themselves, `(n, d) float32`, and which have one of so many
    dimensions, `(n,) bool`."""
    column = rows.column("embedding")
    usable = np.asarray(pc.list_value_length(column).fill_null(-1)) == dimensions
    vectors = np.zeros((len(usable), dimensions), np.float32)
    vectors[usable] = list_array_to_vectors(column.filter(pa.array(usable)))[0].reshape(
        -1, dimensions
    )
    return vectors, usable
