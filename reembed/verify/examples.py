"""Three queries to look at, with what both models answer and the record that they should find."""

from __future__ import annotations

from typing import Any

import numpy as np

from reembed.quality.metrics import judged_relevant
from reembed.quality.noninferiority import Scores
from reembed.quality.search import Hits
from reembed.quality.sidebyside import ANSWERS, TEXT_LENGTH, TextOf, shorten, side_by_side
from reembed.verify.questions import Questions

COUNT = 3


def examples(
    questions: Questions, new: Hits, old: Hits, new_scores: Scores, old_scores: Scores,
    texts: TextOf,
) -> list[dict[str, Any]]:  # fmt: skip
    """One query that both models answer, the one that gained most, and the one that lost most; as
    many as there are, and filled up to three.

    Returns:
        Entries as of `side_by_side`, in which an answer that is right is `expected`; beside them
        `expected`, the records that should be found, each with its text, and `old_rank` and
        `new_rank`, the place of the first right answer among the first k, None where there is none.
    """
    change = new_scores.ndcg - old_scores.ndcg
    order = np.lexsort((np.arange(len(change)), change))
    both = np.flatnonzero((new_scores.mrr == 1) & (old_scores.mrr == 1))
    found = np.flatnonzero((new_scores.success > 0) & (old_scores.success > 0))
    wanted = [*both[:1], *found[:1], order[-1], order[0], *order[::-1]] if len(order) else []
    if len(both):
        wanted.pop(1)
    places = list(dict.fromkeys(int(place) for place in wanted))[:COUNT]
    entries = side_by_side(places, questions.texts, new, old, texts, {})
    known = texts(sorted({id for place in places for id in questions.records[place]}))
    for place, entry in zip(places, entries, strict=True):
        right = judged_relevant(questions.judgements[place])
        for side, hits in (("old", old), ("new", new)):
            entry[f"{side}_rank"] = _rank(questions, hits, place, right)
            values = hits.ids if questions.kind == "judged" else hits.keys
            shown = [value for value, id in zip(values[place][:ANSWERS], hits.ids[place],
                                                strict=False) if id]  # fmt: skip
            for answer, value in zip(entry[side], shown, strict=True):
                answer["expected"] = value in right
        entry["expected"] = [
            {"id": id, "text": shorten(known.get(id, ""), TEXT_LENGTH)}
            for id in questions.records[place][:ANSWERS]
        ]
    return entries


def _rank(questions: Questions, hits: Hits, place: int, right: Any) -> int | None:
    ranked = questions.rankings(hits.rows(slice(place, place + 1)))[0]
    return next((rank for rank, one in enumerate(ranked, start=1) if one in right), None)
