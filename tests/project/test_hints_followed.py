"""Every hint that the code can print has a test that does what it says, and goes on."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.support.following import followers
from tests.support.hint_sites import Code, Hint

REPORTED = ("This is a bug in reembed. Please report it",)
"""How hints begin that nobody can follow and get on: what they ask for is done by those who mend
reembed. A test of each raises an error that no part of reembed expects."""


@pytest.fixture(scope="module")
def hints() -> set[Hint]:
    return Code().hints()


def without_follower(hints: set[Hint]) -> set[Hint]:
    files = Counter(hint.text for hint in hints)
    marks = followers()
    return {
        hint for hint in hints
        if not hint.text.startswith(REPORTED)
        and not any(one.is_of(hint, files[hint.text]) for one in marks)
    }  # fmt: skip


def test_the_hints_are_found(hints: set[Hint]) -> None:
    assert len(hints) > 400
    assert Hint("Begin one with `reembed run`.", "report/results.py") in hints


def test_every_hint_has_a_follower(hints: set[Hint]) -> None:
    alone = without_follower(hints)
    told = "mark a test that does what it says: @follows_hint (support/following.py)"
    assert not alone, f"{told}: {sorted(alone)}"


def test_every_mark_is_of_a_hint(hints: set[Hint]) -> None:
    lost = [
        one for one in followers()
        if not any(one.words in h.text and one.where in ("", h.where) for h in hints)
    ]  # fmt: skip
    assert not lost, "no hint has these words"


def test_what_is_only_reported_is_told_of_bugs_alone(hints: set[Hint]) -> None:
    told = {hint.where for hint in hints if hint.text.startswith(REPORTED)}
    assert told == {"cli/entry.py", "commands/watch/findings.py"}
