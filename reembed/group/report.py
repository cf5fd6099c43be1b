"""The report of a group: a line for each collection, which leads to its own report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reembed.group.results import GroupResult, MemberResult
from reembed.report.html.markup import Markup, h
from reembed.report.html.page import page_head
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
        lines = [
            f"## {result.name}: {_outcome(result)}", "",
            f"{len(result.members)} collections, {result.exported:,} records, "
            f"{result.quarantined:,} quarantined; {result.state}.", "",
            "| collection | records | state | verdict |", "| --- | ---: | --- | --- |",
        ]  # fmt: skip
        for member in result.members:
            cells = [member.collection, f"{member.result.exported:,}", member.result.state,
                     verdict_of(member)]  # fmt: skip
            lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
        return "\n".join(lines) + "\n"

    def to_html(self) -> str:
        result = self.result
        rows = [h("tr", _link(member), h("td", f"{member.result.exported:,}"),
                  h("td", member.result.state), h("td", verdict_of(member)))
                for member in result.members]  # fmt: skip
        heads = [h("th", title, scope="col") for title in
                 ("collection", "records", "state", "verdict")]  # fmt: skip
        body = h(
            "body",
            h("header", h("h1", f"{result.name}: {_outcome(result)}"),
              h("p", f"{len(result.members)} collections, {result.exported:,} records, "
                     f"{result.quarantined:,} quarantined; {result.state}")),
            h("main", h("section", h("h2", "Collections"),
                        h("table", h("thead", h("tr", heads)), h("tbody", rows)))),
        )  # fmt: skip
        return "<!doctype html>\n" + h("html", page_head(result.name), body, lang="en") + "\n"


def verdict_of(member: MemberResult) -> str:
    """`pass`, or what is in the way."""
    if member.error is not None:
        return member.error.message
    verdict = member.result.verdict
    if verdict is None:
        return "none yet"
    return "pass" if verdict.passed else "; ".join(
        f"{gate.name} {gate.status}: {gate.message}" for gate in verdict.failing
    )  # fmt: skip


def _outcome(result: GroupResult) -> str:
    if result.passed is None:
        return "no verdict on all of them yet"
    return "pass" if result.passed and result.error is None else "the swap is refused"


def _link(member: MemberResult) -> Markup:
    """The name, leading to the collection's own report, beside the group's."""
    parts = Path(member.result.path).parts[-3:]
    there = (Path(member.result.path) / REPORT_FILE).exists()
    return h("td", h("a", member.collection, href="/".join([*parts, REPORT_FILE]))
             if there else member.collection)  # fmt: skip


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
