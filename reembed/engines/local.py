"""The local engine: threads of this process."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from reembed.engines.base import Item, Result


class LocalEngine:
    """Threads do: the work is a provider's request, or numpy or onnxruntime outside the GIL."""

    def map(
        self, function: Callable[[Item], Result], items: Iterable[Item], *, workers: int = 1
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
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:
                for future in pending:
                    future.cancel()
