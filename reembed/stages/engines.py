"""Engines apply a function to shards: in threads of this process."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ThreadPoolExecutor, wait
from typing import Any, Protocol, Self, TypeVar

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


class LocalEngine:
    """Threads do: the work is a provider's request, or numpy or onnxruntime outside the GIL."""

    def begun(self, item: object) -> bool:
        """See `Engine.begun`."""
        return False

    def map(
        self,
        function: Callable[[Item], Result],
        items: Iterable[Item],
        *,
        workers: int = 1,
        stop: Callable[[], None] | None = None,
    ) -> Iterator[Result]:
        """See `Engine.map`."""
        if workers == 1:
            yield from map(function, items)
            return
        pending: deque[Future[Result]] = deque()
        with ThreadPoolExecutor(workers, thread_name_prefix="shard") as pool:
            try:
                for item in items:
                    pending.append(pool.submit(function, item))
                    if len(pending) >= workers:
                        yield _first(pending)
                while pending:
                    yield _first(pending)
            except BaseException:
                for future in pending:
                    future.cancel()
                if stop is not None:
                    stop()  # or leaving the pool would wait for whole shards
                raise


def _first(pending: deque[Future[Result]]) -> Result:
    """The result of the first, as soon as there is one; the error of any, as soon as it fails."""
    while not pending[0].done():
        wait([future for future in pending if not future.done()], return_when=FIRST_COMPLETED)
        for future in pending:
            if future.done():
                future.result()
    return pending.popleft().result()


class EarlyEngine:
    """Threads that begin on items before `map` asks for their results, while the stage before is
    still at work on others. What waits is an item and not its data, so as many may as there are.

    Args:
        workers: items in work at once.
    """

    def __init__(self, workers: int) -> None:
        self.stopped = threading.Event()
        """Set once nothing more is to be begun: one has failed, or the engine was closed."""
        self._begun: dict[Any, Future[Any]] = {}
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._stop: Callable[[], None] | None = None
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="shard")

    def begin(
        self, function: Callable[[Item], Result], item: Item, stop: Callable[[], None]
    ) -> None:
        """Begin on an item as soon as a worker is free. What goes wrong is raised by `map`.

        Args:
            stop: see `Engine.map`.
        """
        self._stop = stop
        if item not in self._begun:
            self._begun[item] = self._pool.submit(self._do, function, item)
            self._begun[item].add_done_callback(self._tell)

    def begun(self, item: object) -> bool:
        """See `Engine.begun`: whether `begin` had it."""
        return item in self._begun

    @property
    def busy(self) -> bool:
        """Whether one that was begun is still to be done."""
        return not all(one.done() for one in self._begun.values())

    def map(
        self,
        function: Callable[[Item], Result],
        items: Iterable[Item],
        *,
        workers: int = 1,
        stop: Callable[[], None] | None = None,
    ) -> Iterator[Result]:
        """See `Engine.map`; `workers` are those of the engine."""
        wanted = list(items)
        for item in wanted:
            self.begin(function, item, stop or (lambda: None))
        for item in wanted:
            future = self._begun[item]
            with self._changed:
                while self._error is None and not future.done():
                    self._changed.wait()
            if self._error is not None:
                self._pool.shutdown(cancel_futures=True)  # what is in work ends first
                raise self._error
            yield future.result()

    def _do(self, function: Callable[[Item], Result], item: Item) -> Result:
        if self.stopped.is_set():
            raise CancelledError
        try:
            return function(item)
        except BaseException as error:
            with self._changed:
                first = self._error is None and not self.stopped.is_set()
                self._error = self._error or error
            if first:
                self._end()
            raise

    def _tell(self, _: Future[Any]) -> None:
        with self._changed:
            self._changed.notify_all()

    def _end(self) -> None:
        self.stopped.set()
        if self._stop is not None:
            self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.busy:
            self._end()  # or leaving the pool would wait for whole shards
        self._pool.shutdown(cancel_futures=True)
