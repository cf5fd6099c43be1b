"""What became of a record whose vector is not the model's of its text."""

from __future__ import annotations

import numpy as np

from reembed.commands.audit import screening
from reembed.commands.audit.formats import Format, Formats
from reembed.commands.audit.held import Held, Mask, Rows
from reembed.commands.audit.judge import NEARLY, Judge
from reembed.commands.audit.result import Kind
from reembed.records import bad_rows, unit

OWN = 0.999
"""Quantile of the distance of the good ones beyond which a vector is another model's."""
BLOCK = 1_024
MOST = 5_000
"""Records that are held against each other's texts."""
FEWEST_FOREIGN = 10
"""Foreign vectors from which it is known what they look like."""
FEWEST_GOOD = 50
"""Good vectors below which nobody can say what another model's look like."""

Named = dict[Kind, Rows]


def kinds_of(
    held: Held, judge: Judge, good: Rows, bad: Rows, formats: Formats, rng: np.random.Generator
) -> tuple[Named, dict[Format, Rows]]:
    """Rows by kind, and the formats that were found.

    What no format and no other text explains is of its kind by where its vector lies.
    """
    named: Named = {}
    explained = formats.explain(bad, rng) if len(bad) else {}
    of_format = np.unique(np.concatenate([*explained.values()])) if explained else bad[:0]
    left = np.setdiff1d(bad, of_format)
    others = _others(held, judge, left)
    left = np.setdiff1d(left, others)
    edited = left[judge.state[left] == NEARLY]
    left = np.setdiff1d(left, edited)
    if len(good) >= FEWEST_GOOD and len(left):
        scale = screening.far_from(held, good[::2])
        foreign = scale.of(held, left) > float(np.quantile(scale.of(held, good[1::2]), OWN))
        foreign |= _beside(held, good, left, foreign)
    else:
        foreign = np.ones(len(left), np.bool_)
    pairs: tuple[tuple[Kind, Rows], ...] = (
        ("foreign", left[foreign]), ("stale", left[~foreign]), ("other_text", others),
        ("edited", edited), ("format", of_format),
    )  # fmt: skip
    for kind, rows in pairs:
        if len(rows):
            named[kind] = rows
    return named, explained


def _beside(held: Held, good: Rows, rows: Rows, foreign: Mask) -> Mask:
    """Those that lie with the foreign ones, although they are not far from the good ones."""
    if foreign.sum() < FEWEST_FOREIGN or foreign.all():
        return foreign
    scale = screening.sides(held, good, rows[foreign])
    return np.asarray(scale.of(held, rows) > float(np.quantile(scale.of(held, good), OWN)))


def _others(held: Held, judge: Judge, rows: Rows) -> Rows:
    """Those that have the vector of another record: the very one, or what the model makes of the
    text of another one that is bad itself, as when a batch was written in another order."""
    if not len(rows):
        return rows
    keys, counts = np.unique(held.vector_keys[held.judgeable], return_counts=True)
    shared = np.isin(held.vector_keys[rows], keys[counts > 1])
    found, batch = judge.fetch(rows[:MOST])
    texts = judge.template.texts_of(batch)
    vectors, there = judge.expected(texts)
    there &= ~bad_rows(vectors)
    found, expected = found[there], unit(vectors[there])
    crossed = np.zeros(held.count, np.bool_)
    for start in range(0, len(found), BLOCK):
        part = found[start : start + BLOCK]
        cosines = held.units(part) @ expected.T
        cosines[np.arange(len(part)), np.arange(start, start + len(part))] = -1
        crossed[part] = cosines.max(axis=1, initial=-1) >= judge.least
    return rows[shared | crossed[rows]]
