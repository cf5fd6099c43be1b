"""Mutated answers: see `tests/support/answers_fuzzed.py`; tests/campaigns has ten thousand."""

from __future__ import annotations

import pytest

from tests.support.answers_fuzzed import KEY, fuzz


def test_some_hundred_mutated_answers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ends = fuzz(0, 150, monkeypatch)
    assert len(ends) >= 4, "many kinds of ends are reached"
    captured = capsys.readouterr()
    assert KEY not in captured.out + captured.err
