"""Queries with what the old and the new model answer, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reembed.report.figures import is_scalar, label, show
from reembed.report.markup import Child, Markup, h

SIDES = ("old", "new")
QUERY_NAMES = ("query", "text", "question", "id")
MOST_QUERIES = 20
MOST_ANSWERS = 10
LONGEST = 300


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
    """The queries one under the other, old and new beside each other where there is room."""
    return h("div", [_query(entry) for entry in entries[:MOST_QUERIES]])


def _query(entry: Mapping[str, Any]) -> Markup:
    name = next((name for name in QUERY_NAMES if is_scalar(entry.get(name, []))), "")
    notes = [
        f"{label(key)} {show(value)}"
        for key, value in entry.items()
        if key != name and is_scalar(value) and value is not None
    ]
    found = {side: [_id(answer) for answer in entry.get(side) or []] for side in SIDES}
    common = set(found["old"]) & set(found["new"])
    return h(
        "section",
        h("h4", h("bdi", _clip(show(entry.get(name, "query"))), dir="auto")),
        h("p", ", ".join(notes), class_="muted") if notes else None,
        h("div", [_side(side, entry.get(side), common) for side in SIDES], class_="sides"),
        class_="query",
    )


def _side(side: str, found: Any, common: set[str]) -> Markup:
    items: list[Child] = [
        h("li", h("bdi", _clip(_words(answer)), dir="auto"),
          class_="common" if _id(answer) in common else None)
        for answer in (found if isinstance(found, list) else [])[:MOST_ANSWERS]
    ]  # fmt: skip
    shown = h("ol", items) if items else h("p", "no answer", class_="muted")
    return h("div", h("h5", f"{side} model"), shown)


def _id(answer: Any) -> str:
    if isinstance(answer, Mapping):
        return str(answer.get("id", answer))
    return str(answer)


def _words(answer: Any) -> str:
    """An answer with what is known of it: its id, and a score or its text."""
    if not isinstance(answer, Mapping):
        return str(answer)
    rest = [show(v) for key, v in answer.items() if key != "id" and is_scalar(v) and v is not None]
    return "  ·  ".join([_id(answer), *rest]) if "id" in answer else "  ·  ".join(rest)


def _clip(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST] + "…"
