"""Queries with what the old and the new model answer, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reembed.display.markup import Child, Markup, h
from reembed.report.html.figures import is_number, is_scalar, show
from reembed.report.html.labels import label

SIDES = ("old", "new")
QUERY_NAMES = ("query", "text", "question", "id")
MOST_QUERIES = 20
MOST_ANSWERS = 10
LONGEST = 300
UNFOLDED = 3
"""Queries whose answers are open from the start, and in print."""


def is_answers(value: object) -> bool:
    """Whether `value` is a list of queries, each with a list of answers of old, new or both."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(
            isinstance(entry, Mapping) and any(isinstance(entry.get(s), list) for s in SIDES)
            for entry in value
        )
    )


def answers(entries: Sequence[Mapping[str, Any]]) -> Markup:
    """The queries one under the other, the first ones open; old and new beside each other where
    there is room."""
    shown = entries[:MOST_QUERIES]
    return h("div", [_query(entry, unfolded=i < UNFOLDED) for i, entry in enumerate(shown)])


def _query(entry: Mapping[str, Any], *, unfolded: bool) -> Markup:
    name = next((name for name in QUERY_NAMES if is_scalar(entry.get(name, []))), "")
    notes = [
        f"{label(key)} {show(value)}"
        for key, value in entry.items()
        if key != name and is_scalar(value) and value is not None
    ]
    found = {side: [_id(answer) for answer in entry.get(side) or []] for side in SIDES}
    common = set(found["old"]) & set(found["new"])
    title = h("bdi", _clip(show(entry.get(name, "query"))), dir="auto")
    return h(
        "details",
        h("summary", title, h("span", ", ".join(notes), class_="note") if notes else None),
        h("div", [_side(side, entry.get(side), common) for side in SIDES], class_="sides"),
        class_="query", open=unfolded,
    )  # fmt: skip


def _side(side: str, found: Any, common: set[str]) -> Markup:
    items: list[Child] = [
        h("li", _answer(answer), class_="common" if _id(answer) in common else None)
        for answer in (found if isinstance(found, list) else [])[:MOST_ANSWERS]
    ]
    shown = h("ol", items) if items else h("p", "no answer", class_="muted")
    return h("div", h("h5", f"{side} model"), shown)


def _id(answer: Any) -> str:
    if isinstance(answer, Mapping):
        return str(answer.get("id", answer))
    return str(answer)


def _answer(answer: Any) -> Child:
    """An answer with what is known of it: its id, its text, a score."""
    if not isinstance(answer, Mapping):
        return h("bdi", _clip(str(answer)), dir="auto")
    known = {key: value for key, value in answer.items() if key != "id" and is_scalar(value)}
    scores = [show(value) for value in known.values() if is_number(value)]
    texts = [value for value in known.values() if isinstance(value, str) and value]
    return [
        h("bdi", _clip(_id(answer)), dir="auto") if "id" in answer else None,
        h("span", f"  {', '.join(scores)}", class_="muted") if scores else None,
        [h("bdi", _clip(text), dir="auto", class_="note") for text in texts],
    ]


def _clip(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST] + "…"
