"""Threads that send requests, shared by all calls of an embedder."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable


class Workers:
    """At most `count` threads, started as they are needed.

    They are daemons, unlike those of concurrent.futures: a process that was told to stop must not
    wait for a server that hangs.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._closed = False

    def submit(self, task: Callable[[], None]) -> None:
        """Run `task`, which raises nothing, when a thread is free.

        Raises:
            RuntimeError: they are closed.
        """
        with self._lock:
            if self._closed:
                raise RuntimeError("the embedder is closed")
            self._tasks.put(task)
            if len(self._threads) < self._count:
                name = f"embed-{len(self._threads)}"
                thread = threading.Thread(target=self._run, name=name, daemon=True)
                self._threads.append(thread)
                thread.start()

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()

    def close(self) -> None:
        """Let the threads end after the tasks that were submitted."""
        with self._lock:
            self._closed = True
            for _ in self._threads:
                self._tasks.put(None)
