"""What is shown of a thousand collections."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from reembed.cli.groups import text_of
from reembed.errors import PreflightError
from reembed.migration.group.folded import folded, is_told
from reembed.migration.group.report import GroupReport
from reembed.migration.group.results import GroupResult, GroupSwap, MemberResult, MemberSwap
from reembed.report.results import RunResult, SwapResult


def names(count: int) -> list[str]:
    return [f"file-{number:04}" for number in range(count)]


def shown(result: GroupResult | GroupSwap) -> str:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(text_of(result)(result))
    return console.export_text()


def swapped(name: str) -> MemberSwap:
    told = [f"open {name!r} again where it holds it open"]
    told += ["3 rows are odd"] if name == "file-0700" else []
    return MemberSwap(name, SwapResult("swap", "r", True, name, name, f"{name}-old", messages=told))


def test_a_few_are_shown_each_and_many_are_counted() -> None:
    few = folded(names(20), lambda one: False, lambda one: "ready")
    assert (few.shown, few.left, few.rest) == (names(20), [], "")
    many = folded(names(1000), lambda one: one.endswith("99"), lambda one: one[-1:])
    assert many.shown == [*names(1000)[99::100], *names(5)]
    assert set(many.shown) | set(many.left) == set(names(1000))
    assert many.rest.startswith("and 985 more: 100 5, 100 6, 100 7, 100 8, 585 others")


def test_a_thousand_swapped_fill_a_screen_and_say_once_what_holds_for_all() -> None:
    failed = MemberSwap("file-9999", error=PreflightError("it is gone"))
    text = shown(GroupSwap("swap", "r", True, [*map(swapped, names(1000)), failed]))
    assert len(text.splitlines()) < 40
    again = "open each name again where it holds it open (1,000 of 1,001 collections)"
    assert text.count("holds it open") == 1 and again in " ".join(text.split())
    assert "3 rows are odd" in text and "it is gone" in text
    assert "and 994 more: 994 alike (--json has them all)" in text


@pytest.mark.parametrize("form", ["text", "markdown", "html"])
def test_those_to_look_at_are_shown_first(form: str, tmp_path: Path) -> None:
    members = [
        MemberResult(name, RunResult(name, "r", str(tmp_path), "verified", 5,
                                     2 if name == "file-0700" else 0))
        for name in names(1000)
    ]  # fmt: skip
    result = GroupResult("many", "r", str(tmp_path), "verified", members)
    report = GroupReport(result)
    text = {"text": shown(result), "markdown": report.to_markdown(), "html": report.to_html()}[form]
    assert text.index("file-0700") < text.index("file-0000")
    assert "and 994 more: 994 verified" in text
    if form == "html":
        assert all(name in text for name in names(1000)) and "<details" in text
    else:
        assert len(text.splitlines()) < 30


def test_progress_is_told_twenty_times() -> None:
    assert all(is_told(number, 20) for number in range(1, 21))
    assert sum(is_told(number, 1000) for number in range(1, 1001)) <= 22
    assert is_told(1000, 1000)
