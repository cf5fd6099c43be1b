"""Ten thousand mutated answers, in shards that can each be run again (`-k 'shard-07'`)."""

from __future__ import annotations

import pytest

from tests.support.answers_fuzzed import KEY, fuzz

SHARDS, EACH = 20, 500
FIRST = 1_000
"""Seeds below are those of the tests that always run."""


@pytest.mark.long
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("shard", range(SHARDS), ids=lambda shard: f"shard-{shard:02}")
def test_mutated_answers(
    shard: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ends = fuzz(FIRST + shard * EACH, EACH, monkeypatch)
    captured = capsys.readouterr()
    assert sum(ends.values()) == EACH and len(ends) >= 4, "many kinds of ends are reached"
    assert KEY not in captured.out + captured.err
    print(dict(ends))
