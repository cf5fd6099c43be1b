"""The report of a group: a line for each collection, which leads to its own report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reembed.display.markup import Child, Markup, h
from reembed.migration.group.folded import folded
from reembed.migration.group.results import GroupResult, MemberResult
from reembed.quality.conclusion import conclude
from reembed.report.gather import Mood
from reembed.report.html.front import SIGN, card, next_steps, sentence_case, verdict_banner
from reembed.report.html.page import document
from reembed.report.markdown import MARK, code, plain
from reembed.report.write import REPORT_FILE


class GroupReport:
    """What the newest run of a group did and found.

    Args:
        result: where it stands.
    """

    def __init__(self, result: GroupResult) -> None:
        self.result = result

    @property
    def path(self) -> str:
        """Run directory of the group."""
        return self.result.path

    def to_dict(self) -> dict[str, Any]:
        return self.result.to_dict()

    def to_markdown(self) -> str:
        result = self.result
        mood, headline = concluded(result)
        lines = [
            f"### reembed {plain(result.name)}: {MARK[mood]} {plain(headline)}", "",
            plain(_counts(result)), "",
            "| collection | records | state | verdict |", "| --- | ---: | --- | --- |",
        ]  # fmt: skip
        few = folded(result.members, needs_a_look, lambda one: one.result.state)
        for member in few.shown:
            cells = [member.collection, f"{member.result.exported:,}", member.result.state,
                     verdict_of(member)]  # fmt: skip
            lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
        if few.rest:
            lines += ["", f"{few.rest} ({code(REPORT_FILE)} has them all)"]
        next_step = f" · next: {code(result.steps[0].command)}" if result.steps else ""
        lines += ["", f"run {code(result.run)} · {plain(result.state)}{next_step}"]
        return "\n".join(lines) + "\n"

    def to_html(self) -> str:
        result = self.result
        mood, headline = concluded(result)
        few = folded(result.members, needs_a_look, lambda one: one.result.state)
        table: list[Markup] = [_table(few.shown)]
        if few.left:
            table.append(h("details", h("summary", few.rest), _table(few.left)))
        main: list[Child] = [
            verdict_banner(mood, headline, _counts(result)),
            h("div", card("Collections", table, "members"),
              card("What to do next", next_steps(result.remedies, result.steps), "next"),
              class_="cards"),
        ]  # fmt: skip
        eyebrow = h("p", h("strong", "reembed"), " · ", h("bdi", result.name), " · ",
                    f"The run is {result.state}", class_="eyebrow")  # fmt: skip
        footer = h("p", "Run directory: ", h("code", result.path))
        return document(f"{result.name}: {headline}", eyebrow, main, footer)


def _table(members: Sequence[MemberResult]) -> Markup:
    rows = [h("tr", _link(member), h("td", f"{member.result.exported:,}", class_="number"),
              h("td", member.result.state), _verdict_cell(member))
            for member in members]  # fmt: skip
    heads = [h("th", title, scope="col", class_="number" if title == "records" else None)
             for title in ("collection", "records", "state", "verdict")]  # fmt: skip
    return h("div", h("table", h("thead", h("tr", heads)), h("tbody", rows)), class_="scroll")


def needs_a_look(member: MemberResult) -> bool:
    """Whether something is the matter with a collection, or with some of its records."""
    return _mood(member)[0] == "bad" or bool(member.result.quarantined)


def concluded(result: GroupResult) -> tuple[Mood, str]:
    """The verdicts of all collections as one, in words; the worst gives the colour."""
    if result.error is not None or result.passed is False:
        wrong = sum(_mood(member)[0] == "bad" for member in result.members) or 1
        return (
            "bad",
            f"the swap is refused: {wrong} of {len(result.members)} collections are not ready",
        )
    if result.passed is None:
        return "none", "no verdict on all of them yet"
    moods = [_mood(member) for member in result.members]
    passing = "swapped" if result.state == "swapped" else "safe to swap"
    notable = [(member.collection, words) for member, (mood, words)
               in zip(result.members, moods, strict=True) if mood == "caution"]  # fmt: skip
    if not notable:
        return "good", f"{passing} all {len(moods)} collections"
    name, words = notable[0]
    more = f", and {len(notable) - 1} more to look at" if len(notable) > 1 else ""
    return "caution", f"{passing} all {len(moods)} collections; {name}: {words}{more}"


def _mood(member: MemberResult) -> tuple[Mood, str]:
    """The colour of a collection, and what is to be known of it."""
    if member.error is not None:
        return "bad", member.error.message
    verdict = member.result.verdict
    if verdict is None:
        return "none", "none yet"
    found = conclude(verdict)
    return found.tone, found.headline.removeprefix("safe to swap").lstrip("; ") or found.headline


def _counts(result: GroupResult) -> str:
    return (f"{len(result.members)} collections, {result.exported:,} records, "
            f"{result.quarantined:,} left out. They move together.")  # fmt: skip


def verdict_of(member: MemberResult) -> str:
    """The verdict of a collection in words, or what is in the way."""
    if member.error is not None:
        return member.error.message
    verdict = member.result.verdict
    if verdict is None:
        return "none yet"
    if verdict.passed:
        return conclude(verdict).headline
    return "; ".join(f"{gate.name} {gate.status}: {gate.message}" for gate in verdict.failing)


def _verdict_cell(member: MemberResult) -> Markup:
    mood = _mood(member)[0]
    sign = h("span", f"{SIGN[mood]} ", class_=f"mark {mood}", aria_hidden="true")
    return h("td", sign, sentence_case(verdict_of(member)))


def _link(member: MemberResult) -> Markup:
    """The name, leading to the collection's own report, beside the group's."""
    parts = Path(member.result.path).parts[-3:]
    there = (Path(member.result.path) / REPORT_FILE).exists()
    return h("td", h("a", member.collection, href="/".join([*parts, REPORT_FILE]))
             if there else member.collection)  # fmt: skip


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
