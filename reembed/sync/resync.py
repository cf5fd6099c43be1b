"""A shadow that is not live made what the shards say again, by records or by whole shards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reembed.records import SHARD_ROWS, chunked
from reembed.run.directory import RunDir
from reembed.run.ledger import UNKNOWN, Ledger
from reembed.stages.shard_rows import displacing, read_rows, write_rows
from reembed.stores.collection import Collection
from reembed.sync.difference import find_difference


def resync(shadow: Collection, run: RunDir, ledger: Ledger) -> int:
    """Make the shadow what the shards say again, after it was live and written to.

    Returns the number of records put back or removed. What those writes were is in the source by
    now (rollback carried them), and catch-up brings them from there, as it does what was displaced.
    """
    difference = find_difference(shadow, ledger, include_quarantined=False)
    ids = [*difference.changed, *difference.deleted]
    wanted: dict[str, list[str]] = {}
    known = ledger.lookup(ids)
    for id, entry in known.items():
        if not entry.quarantined and entry.row_sha256 != UNKNOWN:
            wanted.setdefault(entry.shard, []).append(id)
    strays = [id for id in ids if id not in known or known[id].quarantined]
    for page in chunked(strays, SHARD_ROWS):
        shadow.delete(page)
    restore_shards(shadow, wanted, run)
    return len(ids)


def restore_shards(shadow: Collection, ids: Mapping[str, Sequence[str]], run: RunDir) -> int:
    """Write records again, rows and vectors, as the shards say that speak for them.

    Args:
        ids: by stem.

    Returns the number of records written.
    """
    export_shards, embed_shards = run.shards("export"), run.shards("embed")
    todo = {id for members in ids.values() for id in members}
    for stem, members in ids.items():
        rows = read_rows(run, export_shards[stem], embed_shards[stem])
        write_rows(displacing(shadow.replace, shadow, run, stem, todo), rows, {*members})
        todo -= {*members}
    return sum(len(members) for members in ids.values())
