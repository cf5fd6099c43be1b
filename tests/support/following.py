"""Tests that do what a hint says, marked with the hint's words.

    @follows_hint("Check the filter against the records' metadata")
    def test_...

says that the test brings the command line, or the library, to print this hint, does what it says,
and goes on. `where` names the file, for words that several files have. The mark is held against
what was said: the test fails if no hint with these words was made in it (but for `elsewhere`: it is
made in another process, where the test looks for itself; and `sometimes`: in some of its cases).
`tests/project/test_hints_followed.py` holds the marks against the code.
"""

from __future__ import annotations

import ast
import re
import tomllib
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, wraps
from pathlib import Path
from typing import Any

import pytest

from reembed import errors
from reembed.commands import doctor
from reembed.commands.watch import findings
from reembed.stages import weigh
from tests.support.hint_sites import PAIRS, Hint

TESTS = Path(__file__).resolve().parents[1]
PYPROJECT = TESTS.parent / "pyproject.toml"

follows_hint = pytest.mark.follows_hint


def wrong_and_right(
    rows: Iterable[tuple[str, Any, pytest.MarkDecorator, Any]],
) -> pytest.MarkDecorator:
    """Parametrizes a test by what is refused, the words of the hint, and what the hint leads to.

    Args:
        rows: of each, its name and, as the hint, its mark.
    """
    return pytest.mark.parametrize(
        ("wrong", "hint", "right"),
        [
            pytest.param(wrong, hint.args[0], right, id=name, marks=hint)
            for name, wrong, hint, right in rows
        ],
    )


def filled(value: Any, places: Mapping[str, str]) -> Any:
    """`{name}` in every text of a row's value, replaced by the place of this name."""
    if isinstance(value, dict):
        return {key: filled(one, places) for key, one in value.items()}
    if isinstance(value, str):
        for name, place in places.items():
            value = value.replace(f"{{{name}}}", place)
    return value


def installs(hint: str, distribution: str) -> bool:
    """Whether the command that a hint begins with, `pip install 'reembed-pipeline[EXTRA]'`, brings
    this distribution."""
    (extra,) = re.findall(r"pip install 'reembed-pipeline\[(\S+)\]'", hint)
    extras = tomllib.loads(PYPROJECT.read_text())["project"]["optional-dependencies"]
    return any(re.match(r"[\w-]+", one)[0] == distribution for one in extras[extra])  # type: ignore[index]


@dataclass(frozen=True)
class Follower:
    """A mark in a test file.

    Attributes:
        words: of the hint.
        where: the file of the hint in the package, or "" for the only one that has it.
        test: the file of the test.
    """

    words: str
    where: str
    test: str

    def is_of(self, hint: Hint, files: int) -> bool:
        """Args: files: how many files have a hint of the same text."""
        return self.words in hint.text and (self.where == hint.where if self.where else files == 1)


@cache
def followers() -> list[Follower]:
    """Every mark in the tests."""
    return [
        Follower(words, where, str(path.relative_to(TESTS)))
        for path in sorted(TESTS.rglob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "follows_hint"
        for where in ["".join(_constant(one.value) for one in node.keywords if one.arg == "where")]
        for words in map(_constant, node.args)
    ]


def _constant(node: ast.expr) -> str:
    assert isinstance(node, ast.Constant) and isinstance(node.value, str), ast.unparse(node)
    return node.value


def hold(marks: list[pytest.Mark], patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Note every hint that is made, and fail if one that is marked was not."""
    made: set[tuple[str, str]] = set()
    for kind in (errors.ReembedError, weigh.Problem, findings.Finding, doctor.Check):
        patch.setattr(kind, "__init__", _noting(kind.__init__, made))
    yield
    for mark in marks:
        where = mark.kwargs.get("where", "")
        where = "" if where in PAIRS else where
        if mark.kwargs.get("elsewhere") or mark.kwargs.get("sometimes"):
            continue
        for words in mark.args:
            assert any(words in hint and where in files for hint, files in made), (
                f"no hint with the words {words!r} was made in this test"
            )


def _noting(init: Any, made: set[tuple[str, str]]) -> Any:
    @wraps(init)
    def noting(self: Any, *given: Any, **more: Any) -> None:
        init(self, *given, **more)
        if self.hint:
            made.add((self.hint, _files()))

    return noting


def _files() -> str:
    """The files that are at work, innermost first."""
    return " ".join(frame.filename for frame in traceback.extract_stack(limit=12))
