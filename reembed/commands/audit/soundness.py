"""What is wrong with vectors whatever the model: missing, zero, not finite, odd, shared."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from reembed.commands.audit.held import Held, Rows
from reembed.commands.audit.result import SHOWN, Finding, Kind
from reembed.records import cosine_rows

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
            yield found(held, kind, rows, f"{_records(len(rows))} {what}", again), rows
    mute = np.flatnonzero(~held.with_text)
    if len(mute):
        told = f"{_records(len(mute))} have no text: nobody can tell what their vectors are of"
        yield found(held, "no_text", mute, told, bad=False), mute
    yield from _lengths(held)
    yield from _shared(held)
    yield from _one_text(held)


def _records(count: int) -> str:
    return f"{count:,} records" if count != 1 else "1 record"


def _lengths(held: Held) -> Iterator[tuple[Finding, Rows]]:
    sound = held.sound
    one = np.abs(held.lengths[sound] - 1) <= ONE
    odd = sound[~one]
    if len(sound) and len(odd) and one.mean() >= MOST:
        low, high = held.lengths[odd].min(), held.lengths[odd].max()
        yield found(
            held, "lengths", odd,
            f"{_records(len(odd))} have vectors of length {low:.3g} to {high:.3g}, and all others "
            "of length 1: something else wrote them",
            "By `l2` and `ip` they are found wrongly even if their direction is right.",
        ), odd  # fmt: skip


def _shared(held: Held) -> Iterator[tuple[Finding, Rows]]:
    """Vectors that several records have to the bit, of different texts."""
    rows = held.judgeable
    order = rows[np.lexsort((held.text_keys[rows], held.vector_keys[rows]))]
    vectors, texts = held.vector_keys[order], held.text_keys[order]
    same = vectors[1:] == vectors[:-1]
    other_text = same & (texts[1:] != texts[:-1])
    odd = np.unique(np.concatenate([order[1:][other_text], order[:-1][other_text]]))
    if not len(odd):
        return
    yield found(
        held, "same_vector", odd,
        f"{_records(len(odd))} share their vector with a record of another text",
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
            f"{_records(len(odd))} have the same text as another, and another vector",
            "One of the two is of another model, or of another text.", bad=False,
        ), odd  # fmt: skip
