"""What a verdict needs of a run's shards and models alone, found while the shadow is loaded.

A store's insert keeps one core busy, and the verdict's exact search, the sample that is embedded
again and the queries need no store at all. So they are found in a thread of lower priority beside
the load. The verdict takes them if the shards are then what they were made from, bit for bit by
their hashes. Of what was written to the source meanwhile there are new shards, and all is found
anew. Nothing is kept on disk: after a kill it is found again, as after a kill of `verify` itself.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from typing import Self

from reembed.progress import stage
from reembed.run.ledger import Ledger
from reembed.stages.meter import Stats, asked_so_far
from reembed.stages.session import Session
from reembed.verify.checks import verification
from reembed.verify.gates import Verification

NICE = 10
"""How much lower the thread's priority is."""


class Stopped(Exception):
    """What is found is not wanted any more."""


class Ahead:
    """See the module. What is begun is ended with the block."""

    def __init__(self, s: Session) -> None:
        self._s = s
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._found: Verification | None = None
        self.before: Stats | None = None
        """What the model had been asked for when the load began."""

    def begin(self) -> None:
        """Begin, if there is a shadow to load that this can go beside."""
        s = self._s
        self.before = asked_so_far(s)
        shards = s.run.shards("embed")
        if self._thread is not None or not s.run.history.not_loaded(shards):
            return
        if not any(shard.rows for shard in shards.values()):
            return
        _ = None if s.manifest.keeps else s.old_embedder  # opened by one thread
        self._thread = threading.Thread(target=self._work, name="ahead", daemon=True)
        self._thread.start()

    def found(self) -> Verification | None:
        """Wait for it. None where it was not begun, or failed: whoever finds it anew is told of
        what is wrong."""
        if self._thread is not None:
            with stage("verify: what needs no shadow"):
                self._thread.join()
        return self._found

    def _work(self) -> None:
        if sys.platform.startswith("linux"):  # where threads have priorities of their own
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        self._begin_opening()
        # Whatever goes wrong goes wrong again where it is found anew, and is told then.
        with contextlib.suppress(Exception), Ledger(self._s.run, removes=False) as ledger:
            checks = verification(self._s, ledger=ledger, wait=self._wait)
            checks.find()
            self._found = checks

    def _begin_opening(self) -> None:
        """Start what will open the collections as an application does: that takes a second."""
        opening = self._s.store.opening
        if opening is not None:
            with contextlib.suppress(Exception):  # the gate tells of it
                opening(())

    def _wait(self) -> None:
        self._s.pause.wait(self._stop)
        if self._stop.is_set():
            raise Stopped

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is None or not self._thread.is_alive():
            return
        if not self._s.manifest.keeps:
            self._s.embedder.cancel()
        self._thread.join()
