"""What the figures of the gates are called on the page: no key of `verdict.json` is shown as it is.

A test walks through the figures of a real verdict and asks for a name of each.
"""

from __future__ import annotations

NAMES = {
    # integrity
    "records": "records in all",
    "loaded": "records in the new collection",
    "quarantined": "records left out",
    "allow_quarantined": "records that may be left out",
    "checked": "compared",
    "by_the_model": "where the model itself gives one vector for both texts",
    "missing": "missing",
    "extra": "too many",
    "changed": "changed",
    "duplicated": "there twice",
    "allowed": "allowed",
    # fidelity
    "sample": "records embedded again",
    "limit": "limit",
    "spread": "of them spread over all records",
    "long": "of them long texts",
    "distance": "largest stretch of records between two samples",
    "long_from_tokens": "a long text begins at (tokens)",
    "longest_tokens": "longest text (tokens)",
    "seen_from_share": "smallest share of faulty records that shows",
    "seen_from_share_of_long": "the same among long texts",
    "below": "records whose vector differs",
    "other_length": "vectors of another length",
    "refused_now": "texts that the model refuses now",
    "not_served": "records that the collection does not give",
    "lowest_cosine": "lowest similarity (cosine)",
    "median_cosine": "median similarity (cosine)",
    "tokens": "tokens of the text",
    "tail.distance": "how far the end of the text moves its vector",
    "noise": "what the same text differs by, asked twice",
    "seen": "the end of the text counts",
    # index
    "recall": "found of what is nearest",
    "k": "answers looked at",
    "queries": "questions",
    "queries_below": "questions below the limit",
    "metric": "distance of the index",
    "target_metric": "distance that it should have",
    "asked": "asked for",
    "ef_construction": "ef_construction",
    "ef_search": "ef_search",
    "max_neighbors": "max_neighbors",
    # recall
    "kind": "kind of questions",
    "margin": "loss that is allowed (margin)",
    "new": "new",
    "old": "old",
    "better": "questions that got better",
    "equal": "questions that stayed the same",
    "worse": "questions that got worse",
    "queries_to_settle": "questions that would decide it",
    "old_model": "about the old model",
    "judged_queries": "judged questions",
    "unanswerable": "questions whose answers are not in this collection",
    "judged_records_not_here": "judged records that are not in this collection",
    "sentence": "a sentence of the record",
    "span": "some words in a row",
    "terms": "some words in any order",
    "whole": "the whole text",
    "pairs": "questions",
    "value": "value",
    # overlap
    "source": "where the questions come from",
    "jaccard": "overlap (Jaccard)",
    "rbo": "rank-biased overlap",
    "rbo_p": "weight of lower ranks (p of rank-biased overlap)",
    "old_recall": "old recall",
    "new_recall": "new recall",
    "difference": "difference",
    # vectors
    "vectors": "vectors looked at",
    "dimensions": "dimensions",
    "mean_cosine": "mean similarity of two records (cosine)",
    "hubness": "hubness (skewness of how often a record is found)",
    "most_often_found": "times that the most often found record is found",
    "never_found": "records that are never found",
    "lengths": "lengths of vectors",
    # latency
    "unit": "unit",
    "old_note": "about the old collection",
    "without_index": "answered without the index, as the store chooses",
    # opening
    "function": "function kept with the new collection",
    # late writes
    "late": "writes not yet copied",
    "conflicts": "records changed in both",
    # time and cost
    "records/s": "records a second",
    "retries": "asked again",
    "requests": "requests",
    "seconds": "seconds",
    # slices
    "slice": "slice",
    "rows": "records of the slice",
    "reason": "reason",
}


DATA = ("groups", "settings")
"""Figures whose keys are not ours: metadata keys, and an index's own settings."""


def label(name: str, within: str = "") -> str:
    """A figure's name for people; one that is not known is its key without underscores.

    Args:
        within: name of the figure that it belongs to, where the same key has another meaning.
    """
    if within in DATA or not name.isidentifier():
        return name
    return NAMES.get(f"{within}.{name}") or NAMES.get(name) or name.replace("_", " ")
