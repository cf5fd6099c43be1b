"""Records that have broken naive copies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from reembed.manifest import Model
from reembed.records import Vectors, export_batch
from reembed.stores.canonical import metadata_text

MODEL = Model(provider="static", name="wordllama", dimensions=4)

Record = tuple[str, str | None, dict[str, Any] | None, str | None]
"""Id, document, metadata and uri."""

AWKWARD: list[Record] = [
    ("plain", "a text", {"kind": "module", "lines": 12, "share": 0.25, "public": True}, None),
    ("empty document", "", {"k": 1}, None),
    ("no document", None, {"k": 1}, None),
    ("no metadata", "text", None, None),
    ("only a uri", None, None, "file:///a b.txt"),
    ("empty uri", "text", None, ""),
    ("nothing at all", None, None, None),
    ("one and one point nought", "t", {"int": 1, "float": 1.0, "bool": True, "str": "1"}, None),
    ("false, nought and empty", "t", {"bool": False, "int": 0, "float": 0.0, "str": ""}, None),
    ("int64", "t", {"most": 2**63 - 1, "least": -(2**63), "beyond doubles": 2**53 + 1}, None),
    ("lists", "t", {"s": ["b", "a", ""], "i": [2, 1], "f": [0.5, 1.0], "b": [True, False]}, None),
    ("keys", "t", {"a b": 1, "ünï": 2, "a.b": "x", " ": "blank", "k" * 300: 1}, "u"),
    ("ünïcödé ☃ 𝄞 \u202e rtl", "日本語 \u0000 nul \r\n tab\t 🤖", {"é": "e\u0301"}, "u\u00e9"),
    ("line\nbreak", "text", None, None),
    ("'; DROP TABLE embeddings; --", 'quotes " and \\ backslash', {"a": "'"}, None),
    ("%s {} ${HOME} ../../etc/passwd", "text", None, None),
    (" leading and trailing ", " text ", None, " uri "),
    ("x" * 5_000, "long id", None, None),
    ("long document", "word " * 100_000, {"text": "y" * 70_000}, None),
    ("0", "looks like a number", None, None),
    ("A", "case matters", None, None),
    ("a", "in ids", None, None),
]


def batch(rows: list[Record]) -> pa.RecordBatch:
    ids, documents, metadatas, uris = zip(*rows, strict=True) if rows else ((), (), (), ())
    return export_batch(ids, documents, [metadata_text(m) for m in metadatas], uris)


def simple(count: int, prefix: str = "r", **metadata: Any) -> pa.RecordBatch:
    return batch(
        [(f"{prefix}{i:05d}", f"text {i}", {"i": i, **metadata}, None) for i in range(count)]
    )


def vectors(count: int, dimensions: int = 4, seed: int = 1) -> Vectors:
    return np.random.default_rng(seed).normal(size=(count, dimensions)).astype(np.float32)


def rows(fetched: pa.RecordBatch) -> list[tuple[str, str | None, str, str | None]]:
    return [
        (row["id"], row["document"], row["metadata"], row["uri"]) for row in fetched.to_pylist()
    ]
