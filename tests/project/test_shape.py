"""Files stay short and functions take few things: what grows past this is two things."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.project.test_imports import PACKAGE

LINES, PARAMETERS = 350, 6

FILES = sorted(PACKAGE.rglob("*.py"))


def name(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", FILES, ids=name)
def test_no_file_is_longer_than_one_subject_takes(path: Path) -> None:
    assert len(path.read_bytes().splitlines()) <= LINES


Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(path: Path) -> Iterator[Function]:
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, Function) and not is_command(node):
            yield node


def is_command(function: Function) -> bool:
    """Whether its parameters are the options of the command line."""
    return any(ast.unparse(one).startswith("app.command") for one in function.decorator_list)


def parameters(function: Function) -> list[str]:
    given = function.args
    named = [one.arg for one in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    rest = [one.arg for one in (given.vararg, given.kwarg) if one]
    return [one for one in (*named, *rest) if one not in ("self", "cls")]


@pytest.mark.parametrize("path", FILES, ids=name)
def test_no_function_takes_more_than_one_can_keep_in_mind(path: Path) -> None:
    many = {
        one.name: found for one in functions(path) if len(found := parameters(one)) > PARAMETERS
    }
    assert not many, f"give {many} handles (`stores/collection.py`) or a small dataclass"
