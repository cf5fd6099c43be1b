from __future__ import annotations

import random
from pathlib import Path

import pytest

from reembed.errors import PreflightError
from reembed.quality.queries import (
    judged_queries,
    known_item_query,
    read_qrels,
    read_queries,
)

TEXT = (
    "How ships are built. The keel is laid first and frames are raised along it one after "
    "another, then "
    "planks are bent around them with steam, caulked with oakum, and painted before the launch "
    "day comes."
)


def test_known_items_are_sentences_spans_and_terms():
    found: dict[str, set[str]] = {}
    for seed in range(60):
        item = known_item_query(TEXT, random.Random(seed))
        found.setdefault(item.kind, set()).add(item.text)
    assert found["sentence"] == {"How ships are built."}
    assert all(text in TEXT and len(text.split()) == 12 for text in found["span"])
    assert all(set(text.split()) <= set(TEXT.split()) for text in found["terms"])
    assert len(found["span"]) > 5 and len(found["terms"]) > 5


@pytest.mark.parametrize("text", ["short", "  a few words with blanks ", "日本語の短い文"])
def test_a_short_text_is_its_own_query(text: str):
    assert known_item_query(text, random.Random(1)).text == text.strip()


def test_texts_without_spaces_and_endless_sentences_stay_short():
    assert len(known_item_query("日本語" * 500, random.Random(1)).text) == 60
    endless = " ".join(f"word{number}" for number in range(5_000))
    for seed in range(20):
        assert len(known_item_query(endless, random.Random(seed)).text) <= 300


def test_the_seed_decides():
    assert known_item_query(TEXT, random.Random(7)) == known_item_query(TEXT, random.Random(7))


def test_files_are_read_with_the_line_that_is_wrong(tmp_path: Path):
    queries = tmp_path / "q.jsonl"
    queries.write_text('{"_id": 1, "text": "a"}\n\n{"_id": "2"}\n')
    with pytest.raises(PreflightError, match=r"q\.jsonl:3"):
        read_queries(queries)
    qrels = tmp_path / "r.tsv"
    qrels.write_text("query-id\tcorpus-id\tscore\n1\td1\t2\n1\td2\thigh\n")
    with pytest.raises(PreflightError, match=r"r\.tsv:3"):
        read_qrels(qrels)
    with pytest.raises(PreflightError, match="cannot be read"):
        read_qrels(tmp_path / "none.tsv")


def test_only_queries_with_something_relevant_are_used(tmp_path: Path):
    queries, qrels = tmp_path / "q.jsonl", tmp_path / "r.tsv"
    queries.write_text("".join(f'{{"_id": "{i}", "text": "t{i}"}}\n' for i in (1, 2, 3)))
    qrels.write_text("query-id\tcorpus-id\tscore\n1\ta\t2\n2\tb\t0\n9\tc\t1\n")
    judged = judged_queries(queries, qrels)
    assert (judged.ids, judged.texts) == (["1"], ["t1"])
    qrels.write_text("query-id\tcorpus-id\tscore\n9\tc\t1\n")
    with pytest.raises(PreflightError, match="judges no query"):
        judged_queries(queries, qrels)
