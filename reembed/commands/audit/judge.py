"""Asks the model for the vectors of texts, and holds those of the collection against them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from reembed.commands.audit.held import Held, Rows
from reembed.embedders.embedder import Embedder
from reembed.embedders.fingerprint import PROBES
from reembed.manifest.template import TextTemplate
from reembed.progress import Progress
from reembed.records import SHARD_ROWS, Vectors, cosine_rows
from reembed.run.vector_cache import VectorCache
from reembed.stages.keeping import embed_keeping
from reembed.stores.collection import Collection

LEAST_NOISE = 1e-3
"""1 - cosine that counts as no difference: what servers and 16-bit floats make of a vector."""
NOISES = 10.0
"""How many times the model's own noise counts as no difference."""
MOST_NOISE = 0.05
NEAR = 0.9
"""Cosine from which a vector is of nearly this text, or of nearly this model."""
PAGE = 500
UNASKED, SAME, NEARLY, OTHER, REFUSED = range(5)
"""What is known of a record: nothing; the vector is the model's of this text; nearly; it is not;
the model does not embed this text."""


def noise_of(embedder: Embedder) -> float:
    """The largest 1 - cosine between two answers of a model for one text: sent alone, and among
    others in another order."""
    texts = [text for _, text in PROBES]
    alone = np.concatenate([embedder.embed_each([text]).vectors for text in texts[:3]])
    among = embedder.embed_each(texts).vectors
    turned = embedder.embed_each(texts[::-1]).vectors[::-1]
    found = max((1 - cosine_rows(alone, among[:3])).max(), (1 - cosine_rows(among, turned)).max())
    return float(max(found, 0.0))


@dataclass
class Judge:
    """What was asked so far, and what came of it.

    Attributes:
        noise: of the model, as `noise_of` measures it.
        state: of each record, one of the constants above.
        cosines: of each record that was asked for, NaN for the others.
        tokens: that were asked for.
    """

    collection: Collection
    held: Held
    template: TextTemplate
    embedder: Embedder
    cache: VectorCache
    progress: Progress
    noise: float = 0.0
    state: npt.NDArray[np.int8] = field(init=False)
    cosines: npt.NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin again, as with another template."""
        self.state = np.zeros(self.held.count, np.int8)
        self.cosines = np.full(self.held.count, np.nan)

    @property
    def least(self) -> float:
        """Cosine from which two vectors are the same."""
        return 1 - min(MOST_NOISE, max(LEAST_NOISE, NOISES * self.noise))

    def ask(self, rows: Rows) -> None:
        """Judge these rows, where that is not done yet. Raises as `Embedder.embed_documents`."""
        rows = rows[self.state[rows] == UNASKED]
        with self.progress.stage("ask the model", len(rows)) as counter:
            for start in range(0, len(rows), PAGE):
                part = rows[start : start + PAGE]
                self._judge(part)
                counter.update(len(part))

    def _judge(self, rows: Rows) -> None:
        found, batch = self.fetch(rows)
        self.state[rows] = REFUSED  # what is gone meanwhile is not judged
        texts = self.template.texts_of(batch)
        kept = [place for place, text in enumerate(texts) if text.strip()]
        if not kept:
            return
        vectors, there = embed_keeping(self.embedder, self.cache, [texts[place] for place in kept])
        asked = found[kept]
        cosines = cosine_rows(np.asarray(self.held.vectors[asked]), vectors)
        self.cosines[asked[there]] = cosines[there]
        state = np.where(cosines >= self.least, SAME, np.where(cosines >= NEAR, NEARLY, OTHER))
        self.state[asked] = np.where(there, state, REFUSED)

    def fetch(self, rows: Rows) -> tuple[Rows, pa.RecordBatch]:
        """The records of these rows that are as they were read, without vectors."""
        ids = [self.held.ids[row] for row in rows]
        parts = [self.collection.fetch(ids[start : start + SHARD_ROWS], vectors=False)
                 for start in range(0, len(ids), SHARD_ROWS)]  # fmt: skip
        batch = pa.Table.from_batches(parts).combine_chunks().to_batches() if parts else []
        if not batch:
            return rows[:0], self.collection.fetch([], vectors=False)
        place = dict(zip(ids, rows.tolist(), strict=True))
        found = np.array([place[id] for id in batch[0].column("id").to_pylist()], np.int64)
        hashes = batch[0].column("row_sha256").to_pylist()
        same = np.array([self.held.hashes[row] == one
                         for row, one in zip(found, hashes, strict=True)], np.bool_)  # fmt: skip
        return found[same], batch[0].filter(pa.array(same))

    def expected(self, texts: Sequence[str]) -> tuple[Vectors, npt.NDArray[np.bool_]]:
        """The model's vectors of texts, and which there are."""
        return embed_keeping(self.embedder, self.cache, texts)

    def rows(self, *states: int) -> Rows:
        """Those of which this is known."""
        return np.flatnonzero(np.isin(self.state, states))

    @property
    def asked(self) -> int:
        """Records that the model was asked for."""
        return int((self.state != UNASKED).sum())
