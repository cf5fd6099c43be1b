"""Where errors of Postgres become ours, whichever statement they come from.

Most are told where they happen, with the table they are about (`client.mapped`). A server that goes
away ends any statement, even one that cannot fail otherwise.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, TypeVar

from reembed.stores.postgres.client import mapped

Part = TypeVar("Part")


class _Told:
    """A part of a store, of which no error of psycopg comes out."""

    def __init__(self, part: object, url: str) -> None:
        self._part, self._url = part, url

    def __getattr__(self, name: str) -> Any:
        with mapped(self._url):  # a property asks, too
            value = getattr(self._part, name)
        return told(value, self._url) if inspect.ismethod(value) else value


def part_told(part: Part, url: str) -> Part:
    """The part, with all of its errors ours.

    Args:
        url: without secrets, for what is not told better already.
    """
    told_part: Any = _Told(part, url)
    return told_part  # type: ignore[no-any-return]


def told(work: Callable[..., Any], url: str) -> Callable[..., Any]:
    """A function, with all of its errors ours; those too of an iterator that it returns."""

    @wraps(work)
    def mapping(*arguments: Any, **options: Any) -> Any:
        with mapped(url):
            answer = work(*arguments, **options)
        return _stepwise(answer, url) if inspect.isgenerator(answer) else answer

    return mapping


def _stepwise(steps: Iterator[Any], url: str) -> Iterator[Any]:
    with mapped(url):
        yield from steps
