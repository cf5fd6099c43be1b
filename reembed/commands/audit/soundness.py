"""What is wrong whatever the model: vectors that are missing, zero, not finite, odd or shared, and
what the database holds of no record."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from reembed.applications.mem0 import living_memories
from reembed.commands.audit.held import Held, Rows
from reembed.commands.audit.result import SHOWN, Finding, Kind, of_records
from reembed.records import cosine_rows
from reembed.stores.values import Orphans

ONE = 1e-3
"""How far from one the length of a vector of length one may be."""
MOST = 0.9
"""Share of vectors of length one from which the others are odd."""
FAR = 0.9
"""Cosine below which two vectors of one text are different."""


def found(
    held: Held, kind: Kind, rows: Rows, message: str, hint: str = "", *, bad: bool = True
) -> Finding:
    """A finding about rows that are all known."""
    ids = [held.ids[row] for row in rows[:SHOWN]]
    count = len(rows)
    return Finding(kind, message, hint, bad, count, None, count, count, ids)


def soundness(held: Held) -> Iterator[tuple[Finding, Rows]]:
    """Findings, each with its rows."""
    again = "`--fix` embeds them again."
    lost = np.flatnonzero(held.missing & held.with_text)
    zero, odd = (np.flatnonzero(held.bad & mask) for mask in (held.lengths == 0, held.lengths != 0))
    plain: tuple[tuple[Kind, Rows, str], ...] = (
        ("missing", lost, "have a text and no vector"),
        ("zero", zero, "have a vector of zeros"),
        ("not_finite", odd, "have a vector that is not finite"),
    )
    for kind, rows, what in plain:
        if len(rows):
            yield found(held, kind, rows, of_records(len(rows), what), again), rows
    mute = np.flatnonzero(~held.with_text)
    if len(mute):
        told = of_records(len(mute), "have no text: nobody can tell what their vectors are of")
        yield found(held, "no_text", mute, told, bad=False), mute
    yield from _lengths(held)
    yield from _shared(held)
    yield from _one_text(held)


def of_no_record(orphans: Iterable[Orphans]) -> Iterator[Finding]:
    """Findings about what belongs to no record."""
    hints = {
        "metadata": "`--fix` deletes them, and keeps them in a file.",
        "vectors": "A migration with `model: keep` builds the index anew: docs/keep.md.",
        "rest": "",
    }
    for one in orphans:
        kind: Kind = "ghost" if one.kind == "vectors" else "orphan"
        yield Finding(
            kind, f"{one.count:,} {one.about}", hints[one.kind], one.harmful, one.count, None,
            one.count, one.count, list(one.ids[:SHOWN]),
        )  # fmt: skip


def lost_memories(history: Path, ids: Iterable[str]) -> Iterator[Finding]:
    """A finding about memories that mem0's history says are alive, and that are not there."""
    held = set(ids)
    lost = [one for one in living_memories(history) if one not in held]
    if lost:
        yield Finding(
            "lost", f"{len(lost):,} memories are alive by {history} and not in the collection",
            "They were lost, deleted by something other than mem0, or written to another database: "
            "docs/mem0.md merges such.",
            True, len(lost), None, len(lost), len(lost), lost[:SHOWN],
        )  # fmt: skip


def are_of_length_one(held: Held, rows: Rows) -> bool:
    """Whether an application that wrote these vectors scales them to length one."""
    return bool(len(rows)) and bool(_of_length_one(held, rows).mean() >= MOST)


def _of_length_one(held: Held, rows: Rows) -> npt.NDArray[np.bool_]:
    return np.asarray(np.abs(held.lengths[rows] - 1) <= ONE)


def _lengths(held: Held) -> Iterator[tuple[Finding, Rows]]:
    odd = held.sound[~_of_length_one(held, held.sound)]
    if len(odd) and are_of_length_one(held, held.sound):
        low, high = held.lengths[odd].min(), held.lengths[odd].max()
        yield found(
            held, "lengths", odd,
            of_records(len(odd), f"have vectors of length {low:.3g} to {high:.3g}, and all others "
                       "of length 1: something else wrote them"),
            "By `l2` and `ip` they are found wrongly even if their direction is right. `--fix` "
            "embeds them again, at length 1.",
        ), odd  # fmt: skip


def _shared(held: Held) -> Iterator[tuple[Finding, Rows]]:
    """Vectors that several records have to the bit, of different texts."""
    rows = held.judgeable
    order = rows[np.lexsort((held.text_keys[rows], held.vector_keys[rows]))]
    vectors, texts = held.vector_keys[order], held.text_keys[order]
    same = vectors[1:] == vectors[:-1]
    again = np.sort(order[1:][same & (texts[1:] == texts[:-1])])
    if len(again):
        told = of_records(len(again), "have the text and the vector of another record")
        yield found(held, "duplicate", again, told, bad=False), again
    other_text = same & (texts[1:] != texts[:-1])
    odd = np.unique(np.concatenate([order[1:][other_text], order[:-1][other_text]]))
    if not len(odd):
        return
    yield found(
        held, "same_vector", odd,
        of_records(len(odd), "share their vector with a record of another text"),
        "Texts that differ only after the model's limit may; others may not.", bad=False,
    ), odd  # fmt: skip


def _one_text(held: Held) -> Iterator[tuple[Finding, Rows]]:
    """Records of one text whose vectors differ."""
    rows = held.judgeable
    order = rows[np.argsort(held.text_keys[rows], kind="stable")]
    texts = held.text_keys[order]
    at = np.flatnonzero(texts[1:] == texts[:-1])
    at = at[held.vector_keys[order[at]] != held.vector_keys[order[at + 1]]]
    if not len(at):
        return
    one, other = order[at], order[at + 1]
    far = cosine_rows(held.units(one), held.units(other)) < FAR
    odd = np.unique(np.concatenate([one[far], other[far]]))
    if len(odd):
        yield found(
            held, "same_vector", odd,
            of_records(len(odd), "have the same text as another, and another vector"),
            "One of the two is of another model, or of another text.", bad=False,
        ), odd  # fmt: skip
