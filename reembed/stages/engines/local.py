"""The local engine: threads of this process."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from reembed.stages.engines.engine import Item, Result


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
