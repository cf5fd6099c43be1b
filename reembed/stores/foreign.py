"""Records on their way into another kind of store, in the form in which that one hands them out.

A row of Postgres has columns of its own types, and JSON of any depth; Chroma's metadata is flat. So
objects become keys with dots, what is null is left out, and lists that are not of one type become
JSON text. All comparisons are then of what both stores can hold, and the way back puts keys with
dots together again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from reembed.manifest.adapters import store_entry
from reembed.records import export_batch
from reembed.stores.canonical import metadata_text

INT64 = range(-(2**63), 2**63)


@dataclass(frozen=True)
class Fitting:
    """Records of a store with nested metadata for one with flat metadata, and back."""

    def there(self, records: pa.RecordBatch) -> pa.RecordBatch:
        """Records as the flat store hands them out, row hashes too."""
        return _with_metadata(records, [flat(text) for text in _metadata(records)])

    def back(self, records: pa.RecordBatch) -> pa.RecordBatch:
        """Records of the flat store as the other one takes them."""
        return _with_metadata(records, [nested(text) for text in _metadata(records)])


def fitting(source_url: str, target_url: str) -> Fitting | None:
    """What records of a source need to go into a target; None where they go as they are."""
    source, target = (kind_of(url) for url in (source_url, target_url))
    return Fitting() if target == "chroma" and source not in (None, "chroma") else None


def kind_of(url: str) -> str | None:
    """Name of the package that opens a store of this URL; None where none does."""
    entry = store_entry(url.partition(":")[0])
    return entry.module.split(".")[2] if entry is not None and entry.module else None


def flat(text: str) -> str:
    """Metadata as a flat object, in canonical JSON."""
    parsed = json.loads(text)
    if parsed is not None and not isinstance(parsed, dict):
        parsed = {"metadata": parsed}
    return metadata_text(dict(_flat(parsed or {}, "")))


def _flat(metadata: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in metadata.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        kinds = {type(item) for item in value}
        if len(kinds) == 1 and kinds <= {str, int, float, bool}:
            return value
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, int) and value not in INT64:
        return str(value)
    return value


def nested(text: str) -> str:
    """Flat metadata with its keys with dots as objects again, where no other key is in the way."""
    found: dict[str, Any] = {}
    for key, value in (json.loads(text) or {}).items():
        *path, last = key.split(".")
        place = found
        for step in path:
            inner = place.setdefault(step, {})
            if not isinstance(inner, dict):
                place, last = found, key
                break
            place = inner
        place[last] = value
    return json.dumps(found, ensure_ascii=False)


def _metadata(records: pa.RecordBatch) -> list[str]:
    texts: list[str] = records.column("metadata").to_pylist()
    return texts


def _with_metadata(records: pa.RecordBatch, metadatas: list[str]) -> pa.RecordBatch:
    ids, documents, uris = (records.column(name) for name in ("id", "document", "uri"))
    return export_batch(ids, documents, metadatas, uris, records.column("embedding"))
