"""What a tool lost: the source and what it made of it, compared record by record.

    python -m tests.campaigns.benchmarks.peers.losses chroma SOURCE docs TARGET docs-moved

Both are read by the stores' own clients; nothing here imports reembed. The vector of a text is
known, since the benchmark's server makes it from the text alone.
"""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.campaigns.benchmarks.fast_server import vector_of
from tests.campaigns.benchmarks.scene import PAGE

NEW = 1536
NEAR = 1e-5
"""How far a value of a vector may be off: what float32, JSON and a cosine space do to it."""
NAMED = 5
"""Records named for each kind of loss."""

Vector = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class Record:
    """As the store gives it back."""

    document: str | None
    metadata: Mapping[str, Any] | None
    vector: Vector | None


@dataclass(frozen=True)
class Content:
    """A collection, or a table."""

    records: Mapping[str, Record]
    metric: str


def lost(
    source: Content,
    target: Content,
    embed: Callable[[str], Vector] = lambda text: vector_of(text, NEW),
) -> dict[str, Any]:
    """Kinds of loss, each with the number of records and the first that have it.

    Args:
        embed: the vector of a text by the new model.

    Returns:
        Nothing if nothing is lost. `metric` holds both, the rest `records` and `such as`.
    """
    counts: Counter[str] = Counter()
    examples: dict[str, list[str]] = {}
    for id, record in source.records.items():
        for kind in _of_record(record, target.records.get(id), embed):
            counts[kind] += 1
            examples.setdefault(kind, []).append(id)
    for id in target.records.keys() - source.records.keys():
        counts["records that the source has not"] += 1
        examples.setdefault("records that the source has not", []).append(id)
    found: dict[str, Any] = {
        # The hard ones first: their names say what is wrong.
        kind: {
            "records": counts[kind],
            "such as": sorted(examples[kind], key=lambda id: (not id.startswith("hard"), id))[
                :NAMED
            ],
        }
        for kind in sorted(counts)
    }
    if source.metric != target.metric:
        found["metric"] = f"{source.metric} became {target.metric}"
    return found


def _of_record(old: Record, new: Record | None, embed: Callable[[str], Vector]) -> list[str]:
    """The kinds of loss of one record."""
    if new is None:
        return ["records without text missing" if not old.document else "records missing"]
    kinds = []
    if old.document != new.document:
        kinds.append(_of_document(old.document, new.document))
    kinds += _of_metadata(old.metadata or {}, new.metadata or {})
    if kind := old.document and _of_vector(old, new.vector, embed):
        kinds.append(kind)
    return kinds


def _of_document(old: str | None, new: str | None) -> str:
    if new is None:
        return "documents gone"
    if old and old.startswith(new):
        return "documents cut"
    return "documents changed"


def _of_metadata(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    kinds = set()
    for key in old.keys() - new.keys():
        kinds.add("metadata gone" if not new else f"{_type(old[key])} in metadata gone")
    if new.keys() - old.keys():
        kinds.add("keys added to metadata")
    for key in old.keys() & new.keys():
        if _same(old[key], new[key]):
            continue
        one, other = _type(old[key]), _type(new[key])
        kinds.add(f"{one} in metadata " + ("changed" if one == other else f"became {other}"))
    return sorted(kinds)


def _type(value: Any) -> str:
    return {"NoneType": "null", "str": "text"}.get(type(value).__name__, type(value).__name__)


def _same(old: Any, new: Any) -> bool:
    """Equal in type and to the last bit."""
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(_same, old, new))
    if isinstance(old, float) and isinstance(new, float) and math.isnan(old):
        return math.isnan(new)
    return type(old) is type(new) and bool(old == new)


def _of_vector(old: Record, new: Vector | None, embed: Callable[[str], Vector]) -> str:
    """What is wrong with it; nothing if it is that of the text."""
    assert old.document
    if new is None:
        return "records without a vector"
    wanted = embed(old.document)
    if len(new) != len(wanted):
        return f"vectors of {len(new)} dimensions"
    if _near(new, wanted):
        return ""
    for length in range(500, len(old.document), 500):
        if _near(new, embed(old.document[:length])):
            return f"vectors of the first {length:,} characters"
    return "vectors that are not the model's"


def _near(one: Vector, other: Vector) -> bool:
    return bool(np.abs(one / np.linalg.norm(one) - other / np.linalg.norm(other)).max() < NEAR)


def from_chroma(folder: str, name: str) -> Content:
    """A collection by Chroma's own calls, page by page."""
    import chromadb

    client = chromadb.PersistentClient(folder)
    if name not in [each.name for each in client.list_collections()]:
        raise LookupError(f"no collection {name}")
    collection = client.get_collection(name, embedding_function=None)
    records = {}
    for offset in range(0, collection.count(), PAGE):
        page = collection.get(
            limit=PAGE, offset=offset, include=["documents", "metadatas", "embeddings"]
        )
        parts: Any = (page["ids"], page["documents"], page["metadatas"], page["embeddings"])
        for id, document, metadata, vector in zip(*parts, strict=True):
            records[id] = Record(document, metadata, np.asarray(vector, np.float32))
    configured: Any = collection.configuration_json
    space = (configured.get("hnsw") or {}).get("space") or (configured.get("spann") or {})["space"]
    return Content(records, space)


def from_postgres(url: str, name: str) -> Content:
    """A table by psycopg. `docs.embedding_v2` names the column of the vectors, too."""
    import psycopg
    from pgvector.psycopg import register_vector

    table, _, column = name.partition(".")
    column = column or "embedding"
    query = f"SELECT id, content, metadata, {column} FROM {table}"
    with psycopg.connect(url) as connection:
        register_vector(connection)
        wanted = "SELECT FROM information_schema.columns WHERE table_name = %s AND column_name = %s"
        if not connection.execute(wanted, [table, column]).fetchall():
            raise LookupError(f"no column {column} of a table {table}")
        records = {
            id: Record(
                document, metadata, None if vector is None else np.asarray(vector, np.float32)
            )
            for id, document, metadata, vector in connection.execute(query.encode())
        }
        indexes = connection.execute(
            "SELECT indexdef FROM pg_indexes WHERE tablename = %s", [table]
        ).fetchall()
    metrics = [
        line.rpartition("_ops")[0].rpartition("_")[2]
        for (line,) in indexes
        if f"({column} " in line
    ]
    return Content(records, metrics[0] if metrics else "no index")


def main() -> None:
    """Print what was lost as JSON."""
    store, *places = sys.argv[1:]
    read = {"chroma": from_chroma, "postgres": from_postgres}[store]
    source, name, target, made = places
    try:
        new = read(target, made)
    except LookupError as error:
        print(json.dumps({"all of it": str(error)}))
        return
    print(json.dumps(lost(read(source, name), new)))


if __name__ == "__main__":
    main()
