"""What a signal must not cut in two: a process that is started, and the place that will end it."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

ENDING = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def held_signals() -> Iterator[None]:
    """Let SIGINT and SIGTERM wait for the end of the block, and take effect there.

    Without it, a Ctrl-C between the start of a child and the line that keeps its handle leaves a
    child that nobody ends. The child itself starts with the signals' defaults. Python handles
    signals in its main thread alone, so that elsewhere there is nothing to hold.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    held = {number: signal.getsignal(number) for number in ENDING}
    held = {number: handler for number, handler in held.items() if callable(handler)}
    try:
        for number in held:
            signal.signal(number, lambda received, _: arrived.append(received))
        yield
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)
        for received in dict.fromkeys(arrived):
            signal.raise_signal(received)
