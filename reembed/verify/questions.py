"""What a run's records are asked: judged queries, a log of users' queries, or known items."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reembed.manifest import Verify
from reembed.quality.noninferiority import Kind
from reembed.quality.queries import judged_queries, known_item_query, read_queries
from reembed.quality.search import Hits
from reembed.verify.corpus import Corpus


@dataclass(frozen=True)
class Questions:
    """What is asked.

    Attributes:
        kind: where the right answers come from.
        texts: queries with right answers.
        judgements: for each, right answers (record ids, or text hashes for known items) to grades.
        records: for each, the ids of records that are right answers.
        log: further queries, without right answers.
        figures: how they were made.
    """

    kind: Kind
    texts: list[str]
    judgements: list[Mapping[Any, int]]
    records: list[list[str]]
    log: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    def rankings(self, hits: Hits) -> list[list[Any]]:
        """Record ids for judged queries; text hashes, each once, for known items."""
        if self.kind == "judged":
            return [list(row) for row in hits.ranked_ids()]
        return [list(dict.fromkeys(row)) for row in hits.ranked_keys()]


def make_questions(corpus: Corpus, settings: Verify, sample: Sequence[str], seed: int) -> Questions:
    """Judged queries if the manifest names some; else known items, beside a log if it names one.

    Args:
        sample: ids of records to make known-item queries from.

    Raises:
        PreflightError: a file cannot be read.
    """
    if settings.queries and settings.qrels:
        return _judged(corpus, Path(settings.queries), Path(settings.qrels))
    log: list[str] = []
    if settings.queries:
        everything = sorted(set(read_queries(Path(settings.queries)).values()) - {""})
        generator = random.Random(seed)  # noqa: S311  (a sample, no secret)
        log = generator.sample(everything, min(len(everything), settings.sample))
    return _known_items(corpus, sample, seed, log)


def _judged(corpus: Corpus, queries: Path, qrels: Path) -> Questions:
    judged = judged_queries(queries, qrels)
    grades = [judged.judgements[id] for id in judged.ids]
    relevant = [sorted(id for id, s in one.items() if s > 0) for one in grades]
    known = corpus.known(id for ids in relevant for id in ids)
    kept = [row for row, ids in enumerate(relevant) if known.intersection(ids)]
    figures: dict[str, Any] = {
        "judged_queries": len(judged.ids), "unanswerable": len(judged.ids) - len(kept),
        "judged_records_not_here": sum(id not in known for ids in relevant for id in ids),
    }  # fmt: skip
    if not kept:
        figures["reason"] = f"no record that {qrels} judges relevant is in this collection"
    return Questions(
        "judged", [judged.texts[row] for row in kept], [grades[row] for row in kept],
        [[id for id in relevant[row] if id in known] for row in kept], figures=figures,
    )  # fmt: skip


def _known_items(corpus: Corpus, sample: Sequence[str], seed: int, log: list[str]) -> Questions:
    records = corpus.records(sample)
    generator = random.Random(seed)  # noqa: S311
    items = [known_item_query(records[id].text, generator) for id in sample]
    kinds = sorted({item.kind for item in items})
    return Questions(
        "known-item", [item.text for item in items],
        [{records[id].key: 1} for id in sample], [[id] for id in sample], log,
        {"made_as": {kind: sum(item.kind == kind for item in items) for kind in kinds}},
    )  # fmt: skip
