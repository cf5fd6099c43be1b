"""The report as one HTML page: no script, no font, no picture, nothing that is fetched.

Its style sheet is inlined and named by its hash in the page's Content-Security-Policy, which allows
nothing else, so that whatever a record's id or text holds cannot run or load anything.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from reembed.display.markup import Child, Markup, h, join
from reembed.report.gather import Report
from reembed.report.html.details import details, iso, utc
from reembed.report.html.front import front


def page_head(title: str) -> Markup:
    """The head of a page of ours: its style, and a policy that allows nothing else."""
    style = resources.files("reembed.report.html").joinpath("report.css").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return h(
        "head",
        h("meta", charset="utf-8"),
        h("meta", http_equiv="Content-Security-Policy", content=policy),
        h("meta", name="viewport", content="width=device-width, initial-scale=1"),
        h("meta", name="color-scheme", content="light dark"),
        h("meta", name="referrer", content="no-referrer"),
        h("title", f"{title} · reembed"),
        h("style", Markup(style)),
    )


def page(report: Report) -> str:
    """The whole document."""
    main: list[Child] = [front(report), _examples(report), details(report)]
    return document(f"{report.name}: {report.headline}", _eyebrow(report), main, _footer(report))


def document(title: str, header: Child, main: Child, footer: Child) -> str:
    """A page of ours from its parts."""
    body = h("body", h("header", header), h("main", main), h("footer", footer))
    return "<!doctype html>\n" + h("html", page_head(title), "\n", body, lang="en") + "\n"


def _eyebrow(report: Report) -> Markup:
    return h(
        "p", h("strong", "reembed"), " · ", h("bdi", report.name), " · ",
        h("time", utc(report.written)[:16] + " UTC", datetime=iso(report.written)),
        f" · The run is {report.state}", class_="eyebrow",
    )  # fmt: skip


def _examples(report: Report) -> Markup | None:
    for gate in report.verdict.gates if report.verdict else ():
        found = gate.figures.get("examples")
        if gate.name == "recall" and isinstance(found, list) and found:
            kind, k = str(gate.figures.get("kind")), int(gate.figures.get("k") or 0)
            return example_section(found, kind, k)
    return None


def _footer(report: Report) -> list[Child]:
    seed = f" · seed {report.verdict.seed}" if report.verdict else ""
    words = f"reembed {report.reembed} · run {report.run}{seed}"
    return [h("p", words), h("p", "Run directory: ", h("code", report.path))]


SHOWN = 3
"""Answers of each side; a right one that comes later is shown besides."""


def example_section(entries: Sequence[Mapping[str, Any]], kind: str, k: int) -> Markup:
    """The questions one under the other, old and new beside each other where there is room.

    Args:
        kind: of the questions: judged or known-item.
        k: answers that were looked at.
    """
    made = "questions made from your own records; the right answer is the record itself"
    if kind == "judged":
        made = "questions of your own, with the record that you judged right"
    return h(
        "section", h("h2", "Three of the questions" if len(entries) == 3 else "Some questions",
                     id="examples-title"),
        h("p", f"These are {made}, marked ", h("span", "\N{CHECK MARK}", class_="mark good"), ".",
          class_="muted"),
        [_example(entry, k) for entry in entries],
        class_="examples", aria_labelledby="examples-title",
    )  # fmt: skip


def _example(entry: Mapping[str, Any], k: int) -> Markup:
    old, new = entry.get("old_rank"), entry.get("new_rank")
    return h(
        "article",
        h("h3", h("bdi", f"\N{LEFT DOUBLE QUOTATION MARK}{entry.get('query', '')}"
                         "\N{RIGHT DOUBLE QUOTATION MARK}", dir="auto")),
        h("p", _outcome(old, new), class_="muted"),
        h("div", _side("old", entry, old, k), _side("new", entry, new, k), class_="sides"),
        class_="example",
    )  # fmt: skip


def _outcome(old: object, new: object) -> str:
    if old and new:
        if old == new:
            return "Both models find the right record in the same place."
        better = "new" if int(str(new)) < int(str(old)) else "old"
        return f"Both models find the right record; the {better} one puts it higher."
    if new or old:
        return f"Only the {'new' if new else 'old'} model finds the right record."
    return "Neither model finds the right record."


def _side(side: str, entry: Mapping[str, Any], rank: object, k: int) -> Markup:
    answers = [answer for answer in entry.get(side) or [] if isinstance(answer, Mapping)]
    items: list[Child] = []
    for place, answer in enumerate(answers, start=1):
        right = bool(answer.get("expected"))
        if place <= SHOWN or right:
            items.append(_answer(place, answer, right=right))
    if isinstance(rank, int) and rank > len(answers):
        wanted: Mapping[str, Any] = next(iter(entry.get("expected") or []), {})
        items.append(_answer(rank, wanted, right=True))
    if not rank:
        items.append(h("li", f"The right record is not among the first {k}.", class_="absent"))
    kind = "accent" if side == "new" else None
    return h("div", h("h4", f"{side} model", class_=kind), h("ul", items))


def _answer(place: int, answer: Mapping[str, Any], *, right: bool) -> Markup:
    mark = h("span", "\N{CHECK MARK}", h("span", "right: ", class_="unseen"), class_="mark good")
    text = str(answer.get("text") or "")
    return h(
        "li", h("span", str(place), class_="place"),
        h("div", join([mark if right else None, h("bdi", str(answer.get("id", "")), dir="auto",
                                                  class_="id")]),
          h("bdi", text, dir="auto", class_="text") if text else None),
        class_="right" if right else None,
    )  # fmt: skip
