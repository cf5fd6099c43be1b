"""What a run has learnt of its providers' limits, in `learnt.json` of its directory: nothing is
found out twice. A file that is gone or damaged is only found out again."""

from __future__ import annotations

import contextlib
import json
import threading
from pathlib import Path
from typing import Any

from reembed.run.disk import write_atomic

LEARNT_FILE = "learnt.json"


class Learnt:
    """By a name for provider, model and address, what was learnt. Threads share it.

    Args:
        run: the run directory; None before there is one: see `keep_in`.
        writes: False where nothing may be written.
    """

    def __init__(self, run: Path | None = None, *, writes: bool = True) -> None:
        self._path = run / LEARNT_FILE if run else None
        self._writes = writes
        self._lock = threading.Lock()
        self._all: dict[str, dict[str, Any]] = {}
        if self._path is not None:
            with contextlib.suppress(OSError, ValueError):
                read = json.loads(self._path.read_bytes())
                self._all = read if isinstance(read, dict) else {}

    def of(self, key: str) -> dict[str, Any]:
        found = self._all.get(key)
        return found if isinstance(found, dict) else {}

    def keep(self, key: str, **fields: Any) -> None:
        """Add what was learnt. Raises PreflightError if the disk is full."""
        with self._lock:
            self._all[key] = self.of(key) | fields
            self._write()

    def keep_in(self, run: Path) -> None:
        """Write from now on into this new run directory, first what is known already."""
        with self._lock:
            self._path = run / LEARNT_FILE
            if self._all:
                self._write()

    def _write(self) -> None:
        if self._path is not None and self._writes:
            write_atomic(self._path, json.dumps(self._all, indent=1, sort_keys=True).encode())
