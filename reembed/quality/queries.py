"""Queries to judge with: judged ones from BEIR files, or known-item queries made from the records."""

from __future__ import annotations

import csv
import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reembed.errors import PreflightError

SPAN_WORDS = 12
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n\s*\n")


@dataclass(frozen=True)
class JudgedQueries:
    """Queries with judgements.

    Attributes:
        ids: query ids.
        texts: query texts.
        judgements: query id to record id to score.
    """

    ids: Sequence[str]
    texts: Sequence[str]
    judgements: Mapping[str, Mapping[str, int]]


def read_queries(path: Path) -> dict[str, str]:
    """Query id to text from JSON lines `{"_id", "text"}`. Raises PreflightError with the line."""
    queries: dict[str, str] = {}
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            queries[str(entry["_id"])] = str(entry["text"])
        except (ValueError, KeyError, TypeError):
            raise PreflightError(
                f'{path}:{number}: is not a JSON object with "_id" and "text"',
                "One query a line, the form of BEIR's queries.jsonl.",
            ) from None
    return queries


def read_qrels(path: Path) -> dict[str, dict[str, int]]:
    """Query id to record id to score from tab-separated `query-id corpus-id score` with header."""
    judgements: dict[str, dict[str, int]] = {}
    rows = csv.reader(_lines(path), delimiter="\t")
    for number, row in enumerate(rows, start=1):
        if number == 1 and row[:1] == ["query-id"]:
            continue
        try:
            query, record, score = row
            judgements.setdefault(query, {})[record] = int(score)
        except ValueError:
            raise PreflightError(
                f"{path}:{number}: is not query-id, corpus-id and a whole score, tab-separated",
                "The form of BEIR's qrels files, with that header.",
            ) from None
    return judgements


def judged_queries(queries: Path, qrels: Path) -> JudgedQueries:
    """The queries that have at least one relevant record. Raises PreflightError if none has."""
    texts, judgements = read_queries(queries), read_qrels(qrels)
    usable = [id for id in texts if any(score > 0 for score in judgements.get(id, {}).values())]
    if not usable:
        raise PreflightError(
            f"{qrels}: judges no query of {queries} relevant to anything",
            "Check that both files use the same query ids.",
        )
    return JudgedQueries(usable, [texts[id] for id in usable], judgements)


def known_item_query(text: str, generator: random.Random) -> str:
    """A query that its own record should answer: the first sentence, or a span of words.

    The two kinds take turns by chance; a text too short for either is its own query.
    """
    words = text.split()
    if len(words) <= SPAN_WORDS:
        return text.strip()
    if generator.random() < 0.5:
        first = _SENTENCE_END.split(text.strip(), maxsplit=1)[0]
        if 3 <= len(first.split()) <= len(words) // 2:
            return first
    start = generator.randrange(len(words) - SPAN_WORDS + 1)
    return " ".join(words[start : start + SPAN_WORDS])


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PreflightError(f"{path}: cannot be read: {error}") from None
