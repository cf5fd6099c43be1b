"""List-valued metadata of deleted collections, which Chroma gives to new records.

Chroma 1.5 deletes a collection without its rows in `embedding_metadata_array`
(https://github.com/chroma-core/chroma/issues/7594). They are keyed by SQLite row ids, which the
next records take over, and with them the list-valued metadata: keys that nobody wrote. Deleting
single records leaves nothing. A shadow made after another collection was dropped would carry such
ghosts, so they are removed before (file at hand) or right after (API) records are written, and a
collection is dropped so that none remain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from reembed.records import chunked
from reembed.stores.chroma.failures import mapped
from reembed.stores.chroma.records import BATCH_ROWS, list_ids

if TYPE_CHECKING:
    from chromadb.api.models.Collection import Collection


def missing(collection: Collection, ids: Sequence[str]) -> list[str]:
    """Those of `ids` that are not in the collection yet, and so may take ghosts over."""
    with mapped(collection.name):
        there = set(collection.get(ids=list(ids), include=[])["ids"])
    return [id for id in ids if id not in there]


def remove(
    collection: Collection, new: Sequence[str], wanted: Mapping[str, Mapping[str, Any] | None]
) -> None:
    """Read back records just written, and delete list-valued keys that were not in them.

    Args:
        new: ids that were not there before the write.
        wanted: the metadata that was written, by id.
    """
    if not new:
        return
    with mapped(collection.name):
        read = collection.get(ids=list(new), include=["metadatas"])
        ghosts: dict[str, dict[str, None]] = {}
        for id, metadata in zip(read["ids"], read["metadatas"] or [], strict=True):
            extra = set(metadata or {}) - set(wanted[id] or {})
            if extra:
                ghosts[id] = dict.fromkeys(sorted(extra))
        if ghosts:
            collection.update(ids=list(ghosts), metadatas=cast(Any, list(ghosts.values())))


def delete_lists(collection: Collection) -> None:
    """Delete, record by record, what `delete_collection` would leave behind."""
    ids = [id for page in list_ids(collection, None) for id in page]
    for part in chunked(ids, BATCH_ROWS):
        with mapped(collection.name):
            read = collection.get(ids=list(part), include=["metadatas"])
            listed = [
                id
                for id, metadata in zip(read["ids"], read["metadatas"] or [], strict=True)
                if any(isinstance(value, list) for value in (metadata or {}).values())
            ]
            if listed:
                collection.delete(ids=listed)
