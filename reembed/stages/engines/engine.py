"""What an engine does: apply a function to shards, somewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Engine(Protocol):
    """Where shards are worked on."""

    def begun(self, item: object) -> bool:
        """Whether this item was begun on before `map` is asked for it."""
        ...

    def map(
        self,
        function: Callable[[Item], Result],
        items: Iterable[Item],
        *,
        workers: int = 1,
        stop: Callable[[], None] | None = None,
    ) -> Iterator[Result]:
        """`function(item)` of each item, results in the order of the items.

        At most `workers` items are in work at once and at most as many results wait, so memory
        stays bounded. The first exception stops the rest and is raised; items in work are waited
        for, after `stop` was called to make them end soon.
        """
        ...
