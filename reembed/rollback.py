"""The way back, with what was written since the swap; and `clean`, which ends it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from reembed.difference import find_difference, refuse_collapse, without_conflicts
from reembed.embedders.embedder import Embedder
from reembed.errors import PreflightError, SourceChangedError
from reembed.ledger import Ledger
from reembed.records import SHARD_ROWS, Vectors, chunked, list_array_to_vectors
from reembed.rundir import RunDir
from reembed.stores.base import Store
from reembed.template import TextTemplate


def carry_back(
    store: Store,
    live_id: str,
    parked_id: str,
    ledger: Ledger,
    template: TextTemplate,
    old_embedder: Embedder | None,
    old_model_note: str,
    accept_loss: bool,
) -> tuple[int, list[str]]:
    """Carry what was written to the live collection since the swap into the parked one.

    Deletions are carried, rows whose text is unchanged keep their old vector, and other rows are
    embedded with the old model. Returns the number of rows carried and the ids accepted as lost.

    Raises:
        PreflightError: rows would be lost, and `accept_loss` is not given.
        SourceChangedError: the live collection lost most of its records, and `accept_loss` is not
            given (with it, deletions are not carried then).
    """
    difference = find_difference(store, live_id, None, ledger, include_quarantined=False)
    try:
        refuse_collapse("the live collection", difference, ledger)
    except SourceChangedError as error:
        if not accept_loss:
            raise SourceChangedError(
                f"{error.message.replace('the export', 'the swap')}; rolling back would delete "
                "them from the old collection too",
                "With --accept-loss the old collection comes back as it was, with those records.",
            ) from None
        difference.deleted = []
    for ids in chunked(difference.deleted, SHARD_ROWS):
        store.delete(parked_id, ids)
    carried, lost = len(difference.deleted), list[str]()
    for ids in chunked(difference.changed, SHARD_ROWS):
        rows = store.fetch(live_id, ids, vectors=False)
        vectors, usable = _old_vectors(store, parked_id, rows, template, old_embedder)
        unusable = [
            id for id, ok in zip(rows.column("id").to_pylist(), usable, strict=True) if not ok
        ]
        if unusable and not accept_loss:
            why = old_model_note or "the old model refuses their texts"
            raise PreflightError(
                f"{len(unusable):,} rows written since the swap cannot go back, e.g. "
                f"{', '.join(unusable[:5])}: {why}",
                "Give the old model as source.model, or accept losing them with --accept-loss.",
            )
        lost += unusable
        if usable.any():
            store.replace(parked_id, rows.filter(usable), vectors[usable])
        carried += int(usable.sum())
    return carried, lost


def _old_vectors(
    store: Store,
    parked_id: str,
    rows: pa.RecordBatch,
    template: TextTemplate,
    old_embedder: Embedder | None,
) -> tuple[Vectors, npt.NDArray[np.bool_]]:
    """Old-model vectors for rows, `(n, d) float32`, and which of them there are, `(n,) bool`."""
    ids, texts = _texts(rows, template)
    there = store.fetch(parked_id, ids, vectors=True)
    old_vectors, present = list_array_to_vectors(there.column("embedding"))
    parked = [
        pair
        for pair, ok in zip(zip(*_texts(there, template), strict=True), present, strict=True)
        if ok
    ]
    known = {pair: row for row, pair in enumerate(parked)}
    info = store.describe_id(parked_id)
    vectors = np.zeros((len(ids), info.dimensions or 0 if info else 0), np.float32)
    usable = np.zeros(len(ids), bool)
    todo = []
    for row, pair in enumerate(zip(ids, texts, strict=True)):
        if pair in known:
            vectors[row], usable[row] = old_vectors[known[pair]], True
        else:
            todo.append(row)
    if todo and old_embedder is not None:
        embedded = old_embedder.embed_documents([texts[row] for row in todo])
        vectors[todo] = embedded.vectors
        usable[todo] = [position not in embedded.rejected for position in range(len(todo))]
    return vectors, usable


def _texts(rows: pa.RecordBatch, template: TextTemplate) -> tuple[list[str], list[str]]:
    columns = [rows.column(name).to_pylist() for name in ("id", "document", "metadata", "uri")]
    return columns[0], template.texts(*columns)


def drop_old(
    store: Store, run: RunDir, parked_id: str, live_id: str, live: str, ledger: Ledger,
    where: Mapping[str, Any] | str | None, keep_seconds: int,
) -> str:  # fmt: skip
    """Delete the parked collection by object id, after checking that nothing in it is missed.

    Returns what was done, in words.

    Raises:
        PreflightError: it is kept for longer, holds late writes, or is not the parked one.
    """
    swapped = run.events("swap-done")[-1]["t"]
    due = swapped + keep_seconds
    if time.time() < due:
        raise PreflightError(
            f"the old collection is kept until {time.strftime('%F %T', time.localtime(due))} "
            "(swap.keep_old)",
            "Run clean after that, or set swap.keep_old lower; 0d gives up the way back now.",
        )
    current = store.resolve(live)
    if current.id != live_id:
        raise SourceChangedError(
            f"{live!r} no longer leads to the collection that this run swapped in",
            "Another swap has happened since; nothing was deleted.",
        )
    if store.describe_id(parked_id) is not None:
        late, _ = without_conflicts(
            store, live_id, find_difference(store, parked_id, where, ledger), ledger
        )
        if late:
            raise PreflightError(
                f"the old collection holds {len(late):,} late writes that the live one lacks",
                "Carry them over with `reembed sweep` first.",
            )
        store.drop(parked_id)
    return "the old collection is deleted"
