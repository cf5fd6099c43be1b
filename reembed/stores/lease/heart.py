"""The heartbeat of all leases that this process holds in one store.

One thread renews them in turn: a command that moves a thousand collections holds a thousand leases,
and as many threads would keep the store from the work that the leases are for.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable

Beat = Callable[[], None]

_HEARTS: dict[str, Heart] = {}
_LOCK = threading.Lock()


class Heart:
    """Beats for those who joined, in a thread that ends when the last one has left.

    Args:
        pause: seconds between two beats of each of so many.
    """

    def __init__(self, pause: Callable[[int], float]) -> None:
        self._pause = pause
        self._due: dict[Hashable, float] = {}
        self._beats: dict[Hashable, Beat] = {}
        self._beating: Hashable = None
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def join(self, who: Hashable, beat: Beat) -> None:
        """Beat for `who` from now on. One whose beat raises has left."""
        with self._changed:
            self._beats[who] = beat
            self._due[who] = time.monotonic() + self._pause(len(self._beats))
            if self._thread is None or not self._thread.is_alive():
                self._start()
            self._changed.notify_all()

    def leave(self, who: Hashable, patience: float) -> None:
        """Beat for it no more; wait so many seconds for a beat that is under way."""
        with self._changed:
            self._forget(who)
            self._changed.wait_for(lambda: self._beating is not who, patience)

    def _forget(self, who: Hashable) -> None:
        self._beats.pop(who, None)
        self._due.pop(who, None)
        self._changed.notify_all()

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (beat := self._next()) is not None:
            try:
                beat()
            except BaseException:
                with self._changed:
                    self._forget(self._beating)
                    self._start()  # for the others
                raise
            finally:
                with self._changed:
                    self._beating = None
                    self._changed.notify_all()

    def _next(self) -> Beat | None:
        """The next beat, when it is time for it; None once nobody is left."""
        with self._changed:
            while self._due:
                who = min(self._due, key=self._due.__getitem__)
                left = self._due[who] - time.monotonic()
                if left <= 0:
                    self._due[who] = time.monotonic() + self._pause(len(self._due))
                    self._beating = who
                    return self._beats[who]
                self._changed.wait(left)
            self._thread = None
            return None


def heart_of(store: str, pause: Callable[[int], float]) -> Heart:
    """The heart for a store, by its URL."""
    with _LOCK:
        return _HEARTS.setdefault(store, Heart(pause))
