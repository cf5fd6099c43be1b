"""Queries to judge with: judged ones from BEIR files, a log of users' queries, or known-item
queries made from the records."""

from __future__ import annotations

import csv
import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from reembed.errors import PreflightError

SPAN_WORDS = 12
"""Words of a span, about as many as a long question has."""
SPAN_CHARACTERS = 60
"""Characters of a span in a text without spaces."""
TERMS = 6
LEAST_LETTERS = 4
"""Letters of a word that may say what a text is about."""
LONGEST_SENTENCE = 32
LONGEST_QUERY = 300
"""Characters of a made query: what no model cuts."""
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


def check_files(queries: str | None, qrels: str | None) -> None:
    """Raise PreflightError for files of queries and judgements that no verification could use."""
    if queries and qrels:
        judged_queries(Path(queries), Path(qrels))
    elif queries:
        read_queries(Path(queries))
    elif qrels:
        raise PreflightError(
            f"verify.qrels: {qrels} judges queries, and there are none",
            "Give verify.queries, the file of the queries that it judges, or leave verify.qrels "
            "out.",
        )


@dataclass(frozen=True)
class KnownItem:
    """A query made from a record, which its record should answer.

    Attributes:
        text: the query.
        kind: how it was made.
    """

    text: str
    kind: Literal["sentence", "span", "terms", "whole"]


def known_item_query(text: str, generator: random.Random) -> KnownItem:
    """The first sentence (often the title), a span of words, or some of its words in any order.

    The three take turns by chance; a text too short for them is its own query. Known-item queries
    simulate a user who looks for one document (Azzopardi, de Rijke and Balog 2007, "Building
    simulated queries for known-item topics"); they share words with their record, so they flatter
    every model.
    """
    text = text.strip()
    words = text.split()
    if len(words) <= SPAN_WORDS:
        return _span_of_characters(text, generator)
    chance = generator.random()
    if chance < 1 / 3:
        first = _SENTENCE_END.split(text, maxsplit=1)[0].split()
        if 3 <= len(first) <= len(words) // 2:
            return KnownItem(" ".join(first[:LONGEST_SENTENCE])[:LONGEST_QUERY], "sentence")
    if chance < 2 / 3:
        telling = sorted({word for word in words if len(word) >= LEAST_LETTERS})
        if len(telling) >= 2 * TERMS:
            return KnownItem(" ".join(generator.sample(telling, TERMS))[:LONGEST_QUERY], "terms")
    start = generator.randrange(len(words) - SPAN_WORDS + 1)
    return KnownItem(" ".join(words[start : start + SPAN_WORDS])[:LONGEST_QUERY], "span")


def _span_of_characters(text: str, generator: random.Random) -> KnownItem:
    """For scripts without spaces; a short text whole."""
    if len(text) <= 2 * SPAN_CHARACTERS:
        return KnownItem(text, "whole")
    start = generator.randrange(len(text) - SPAN_CHARACTERS + 1)
    span = text[start : start + SPAN_CHARACTERS].strip()
    return KnownItem(span, "span") if span else KnownItem(text[:SPAN_CHARACTERS], "span")


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        told = error.strerror if isinstance(error, OSError) else f"is not UTF-8: {error}"
        raise PreflightError(
            f"{path}: cannot be read: {told}",
            "verify.queries and verify.qrels name files, relative to the manifest's folder; "
            "without them reembed makes queries of its own.",
        ) from None
