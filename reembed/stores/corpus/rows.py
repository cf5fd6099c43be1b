"""Rows of a file, of whatever format, as records.

A row is a mapping of columns to values. Which column is which comes from `source.columns`; else the
usual names are looked for. Columns that are none of them are metadata. What cannot be a record is a
fault with its place, and never left out in silence.
"""

from __future__ import annotations

import datetime
import decimal
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from reembed.errors import PreflightError
from reembed.records import export_batch, unicode_fault
from reembed.stores.canonical import NO_METADATA, metadata_text

USUAL: Mapping[str, tuple[str, ...]] = {
    "id": ("id", "_id", "doc_id", "uuid"),
    "text": ("document", "text", "content", "page_content"),
    "metadata": ("metadata", "meta"),
    "embedding": ("embedding", "vector"),
}
"""Names that are looked for, by what they hold; the first one that is there is taken."""
OURS = frozenset({"row_sha256", "uri"})
"""Columns that a shard of reembed's has besides, which are no metadata."""
SHOWN = 5

Row = Mapping[str, Any]
Fault = tuple[int, str]
"""Where, counted from 1 over the file, and what is wrong."""


@dataclass(frozen=True)
class Roles:
    """Names of columns by what they hold; None where there is no such column.

    Attributes:
        metadata: a column with all of it, as an object or as its JSON text; None for one key a
            column.
    """

    id: str
    text: str | None
    metadata: str | None
    embedding: str | None

    @cached_property
    def taken(self) -> frozenset[str]:
        """Columns that are no metadata key."""
        own = {self.id, self.text, self.metadata, self.embedding}
        return OURS | frozenset(filter(None, own))


def roles(named: Mapping[Any, str], columns: Sequence[str], where: str) -> Roles:
    """Which column is which.

    Args:
        named: `source.columns`.
        columns: that the file has, or its first rows.
        where: the file, for the error.

    Raises:
        PreflightError: a column that is named is not there, or there is none for the ids.
    """
    found: dict[str, str | None] = {}
    for role, usual in USUAL.items():
        name = named.get(role)
        if name is not None and name not in columns:
            raise PreflightError(
                f"{where}: there is no column {name!r} (source.columns.{role}); there is: "
                f"{', '.join(columns) or 'none'}",
                "Name one that is there, or leave it out.",
            )
        found[role] = name or next((one for one in usual if one in columns), None)
    if found["id"] is None:
        raise PreflightError(
            f"{where}: no column has the ids ({', '.join(USUAL['id'])}); there is: "
            f"{', '.join(columns) or 'none'}",
            "Name it with source.columns: {id: NAME}. A record keeps its id from night to night.",
        )
    return Roles(found["id"], found["text"], found["metadata"], found["embedding"])


def to_records(
    rows: Sequence[Row], roles: Roles, first: int, faults: list[Fault],
    embeddings: pa.Array | None = None,
) -> pa.RecordBatch:  # fmt: skip
    """Rows as records; those with a fault are left out and added to `faults`.

    Args:
        first: place of the first row, counted from 1.
        embeddings: one for each row, `list<float32>`; None for none.
    """
    ids, documents, metadatas, uris = list[str](), list[str | None](), list[str](), []
    kept = list[int]()
    for number, row in enumerate(rows):
        try:
            id, document, uri = _id(row.get(roles.id), roles.id), _text(row, roles.text), None
            if "uri" not in (roles.id, roles.text):
                uri = _text(row, "uri")
            metadata = _metadata(row, roles)
            fields = (id, document or "", metadata, uri or "")
            if unicode_fault("".join(fields)):
                told = next(filter(None, map(unicode_fault, fields)))
                raise ValueError(f"no valid Unicode: {told}")
        except ValueError as error:
            faults.append((first + number, str(error)))
            continue
        kept.append(number)
        ids.append(id)
        documents.append(document)
        metadatas.append(metadata)
        uris.append(uri)
    if embeddings is not None and len(kept) < len(rows):
        embeddings = embeddings.take(pa.array(kept, pa.int64()))
    return export_batch(ids, documents, metadatas, uris, embeddings)


def _id(value: Any, column: str) -> str:
    if isinstance(value, str) and value:
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise ValueError(f"{column!r} is no id, which is a text or a whole number: {_shown(value)}")


def _text(row: Row, column: str | None) -> str | None:
    value = row.get(column) if column else None
    if value is None or isinstance(value, str):
        return value
    raise ValueError(f"{column!r} is no text: {_shown(value)}")


def _metadata(row: Row, roles: Roles) -> str:
    if roles.metadata is None:
        found: Any = {key: value for key, value in row.items() if key not in roles.taken}
    else:
        found = row.get(roles.metadata)
        if isinstance(found, str):
            found = json.loads(found, parse_constant=_refuse_constant)
    if isinstance(found, list) and all(isinstance(one, tuple) for one in found):  # Arrow's map
        found = dict(found)
    if found is None:
        return NO_METADATA
    if not isinstance(found, dict):
        raise ValueError(f"{roles.metadata!r} is no object of keys and values: {_shown(found)}")
    return metadata_text({key: _plain(value) for key, value in found.items() if value is not None})


def _plain(value: Any) -> Any:
    """A value of a column as JSON has it."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return str(value)
    if value is None or isinstance(value, str | int | float):
        return value
    raise ValueError(f"a value of metadata that JSON does not have: {_shown(value)}")


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _shown(value: Any) -> str:
    return "it is missing" if value is None else f"{value!r:.60}"


def fault_error(path: str, unit: str, faults: Sequence[Fault]) -> PreflightError:
    """All that is wrong with a file as one error, with the first places.

    Args:
        unit: what is counted: line or row.
    """
    told = "; ".join(f"{unit} {number}: {what}" for number, what in faults[:SHOWN])
    more = f" (and {len(faults) - SHOWN:,} more)" if len(faults) > SHOWN else ""
    return PreflightError(
        f"{path}: {len(faults):,} {unit}{'s' if len(faults) > 1 else ''} cannot be read as a "
        f"record: {told}{more}",
        "Mend the file; nothing of it is left out in silence, and nothing was changed.",
    )
