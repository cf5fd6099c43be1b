"""Stage 2 for `model: keep`: an export shard becomes an embed shard of its own vectors.

No text is embedded and no model asked. A record without a vector of the collection's dimension goes
to quarantine.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reembed.manifest.template import TextTemplate
from reembed.records import embed_schema, list_array_to_vectors, text_hash, vectors_to_fixed_array
from reembed.run.directory import RunDir, Shard
from reembed.run.quarantine import Reason, quarantine_rows

STAGE = "embed"
NO_VECTOR = ("no_vector", "the store has no vector for it")


@dataclass(frozen=True)
class Keeping:
    """What a shard needs.

    Attributes:
        dimensions: of the vectors that are moved.
    """

    run: RunDir
    template: TextTemplate
    dimensions: int

    def shard(self, source: Shard) -> Shard:
        """Write the embed shard of one export shard."""
        records = self.run.read_shard(source).combine_chunks()
        sizes = np.asarray(pc.list_value_length(records.column("embedding")).fill_null(-1))
        usable = sizes == self.dimensions
        quarantine_rows(self.run, source.stem, records, {
            row: self._reason(int(sizes[row])) for row in np.flatnonzero(~usable).tolist()
        })  # fmt: skip
        kept = records.filter(pa.array(usable))
        vectors, _ = list_array_to_vectors(kept.column("embedding"))
        texts = self.template.texts_of(kept)
        table = pa.table(
            [
                kept.column("id"),
                pa.array([text_hash(text) for text in texts], pa.binary(32)),
                pa.array(np.zeros(len(texts), np.int32)),
                vectors_to_fixed_array(vectors.reshape(-1, self.dimensions)),
            ],
            schema=embed_schema(self.dimensions),
        )
        return self.run.write_shard(STAGE, source.stem, table, source=source.sha256)

    def _reason(self, size: int) -> Reason:
        if size < 1:
            return NO_VECTOR
        return "other_dimensions", f"its vector has {size} dimensions instead of {self.dimensions}"
