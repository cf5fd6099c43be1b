"""A line of JSON is read the same, whichever of the two readers takes it."""

from __future__ import annotations

import json

import pytest

from reembed.stores.corpus import formats
from reembed.stores.corpus.rows import Fault

VALUES = (
    "123456789012345678901234567890", "-9223372036854775809", "18446744073709551616",
    "18446744073709551615", "9223372036854775808", "9.3e18", "-1e300", "1e-400", "-0", "-0.0",
    "0.1", "3.141592653589793238462643383279", "1E5", "true", "null", '"\\u0000\\u00e9"',
    '"\\ud83d\\ude00"', '{"deep": [1, {"n": 36893488147419103232}]}', "[]", "[0.25, 1e-7]",
)  # fmt: skip


@pytest.mark.parametrize("value", VALUES)
def test_values_are_those_of_the_standard_library(value: str) -> None:
    line = f' {{"id": "a", "value": 1, "value": {value}}} \n'
    faults: list[Fault] = []
    row = formats._parsed(line.encode(), 2, faults)
    assert repr(row) == repr(json.loads(line)) and not faults


@pytest.mark.parametrize(
    "line",
    [b'{"a": NaN}', b'{"a": "\xff"}', b'{"a": 1,}', b"[1]", b'{"a": "\t"}', b"\xef\xbb\xbf{}"],
)
def test_what_is_no_object_is_a_fault(line: bytes) -> None:
    faults: list[Fault] = []
    assert formats._parsed(line, 2, faults) is None and len(faults) == 1


def test_what_the_quick_reader_does_not_take_is_read() -> None:
    faults: list[Fault] = []
    deep = b'{"a": ' + b"[" * 400 + b"]" * 400 + b"}"
    lines = [b'\xef\xbb\xbf{"a": 1}', b'{"a": "\\ud800"}', deep]
    assert [formats._quickly(line) for line in lines[:2]] == [None, None]
    rows = [formats._parsed(line, 1, faults) for line in lines]
    assert rows == [{"a": 1}, {"a": "\ud800"}, json.loads(deep)] and not faults
    assert formats._parsed(b" \n", 3, faults) is None and not faults
