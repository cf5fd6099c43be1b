"""The journal: a run's append-only, fsynced log, from which everything else about it follows.

Each line is one JSON object, `{"t": seconds, "event": name, ..., "crc": hex}`. A run killed
anywhere is resumed by reading it again; what is not in the journal did not happen. `crc` is the
CRC-32 of all that was written before it, in this line and those above, so that a line that was
changed, lost or moved is noticed and never acted on. Lines of versions before it have none.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
import zlib
from pathlib import Path
from typing import Any

from reembed.errors import DamagedError
from reembed.redaction import redacted_data
from reembed.run.disk import STATE, fsync_dir, open_private, read_errors, write_errors

DATA = frozenset({"deleted", "foreign", "ids", "members", "metadata", "missing"})
"""Keys of events that hold the user's records or collections, which are never altered."""

_LOST = (
    "The disk or another program changed it. Put the file back from a backup; or move the run "
    "directory away and run again: a new run starts, and the embedding cache keeps what was paid "
    "for. Where the live name has moved, this run's rollback and clean are then no longer possible."
)
_CHECKED = re.compile(rb', "crc": "([0-9a-f]{8})"\}')


class Journal:
    """The lines of a run. Safe to use from several threads of a process.

    A line torn by a crash can only be the last one: it has no newline, is not read, and is cut off
    before the next one is written. Any other damaged line is an error, because what follows it
    cannot be trusted.

    A line is read and parsed once; later calls read what was appended since.

    Args:
        instead: see `write_errors`.
    """

    def __init__(self, path: Path, instead: str = STATE) -> None:
        self.path, self._instead = path, instead
        self._lock = threading.RLock()
        self._forget()

    def _forget(self) -> None:
        self._events: list[dict[str, Any]] = []
        self._size, self._crc = 0, 0
        """Of what is read: bytes of whole lines, and their CRC-32."""

    def read(self) -> list[dict[str, Any]]:
        """All whole events, oldest first. Raises DamagedError if a whole line is damaged."""
        with self._lock, read_errors(self.path):
            if os.path.lexists(self.path) and not self.path.is_file():
                raise DamagedError(f"{self.path}: the journal is not a file", _LOST)
            try:
                size = self.path.stat().st_size
            except FileNotFoundError:
                size = 0
            if size < self._size:  # another file by now
                self._forget()
            if size > self._size:
                with self.path.open("rb") as file:
                    file.seek(self._size)
                    data = file.read()
                # What follows the last newline is torn, even where it reads as JSON: `append` cuts
                # it off.
                *lines, _torn = data.split(b"\n")
                for line in lines:
                    self._take(line)
            return list(self._events)

    def _take(self, line: bytes) -> None:
        """Take in a whole line, without its newline."""
        found = _CHECKED.search(line, max(len(line) - 20, 0))
        written = line[: found.start()] + b"}" if found else line
        if found and int(found[1], 16) != zlib.crc32(written, self._crc):
            raise self.damaged(len(self._events) + 1, "it or a line before it was changed")
        try:
            event = json.loads(written)
            if b"\\u" in written:  # half a character is not a text
                json.dumps(event, ensure_ascii=False).encode()
        except (ValueError, RecursionError):
            event = None
        if not isinstance(event, dict) or not isinstance(event.get("event"), str):
            raise self.damaged(len(self._events) + 1)
        self._events.append(event)
        self._size += len(line) + 1
        self._crc = zlib.crc32(line + b"\n", self._crc)

    def damaged(self, number: int, how: str = "") -> DamagedError:
        """The error of a damaged line, counted from 1."""
        return DamagedError(
            f"{self.path}: line {number} is damaged" + (f": {how}" if how else ""),
            _LOST,
        )

    def lost(self) -> DamagedError:
        """The error of a run whose other files are there."""
        return DamagedError(
            f"{self.path}: the journal of this run is empty or gone, so nothing is known of it",
            _LOST,
        )

    def append(self, event: str, **fields: Any) -> None:
        """Write one event and wait until it is on disk. Raises DamagedError like `read`."""
        with self._lock:
            self.read()
            clean = redacted_data(fields, words=False, exact=DATA)
            line = json.dumps(
                {"t": round(time.time(), 3), "event": event, **clean}, ensure_ascii=False
            ).encode()
            crc = zlib.crc32(line, self._crc)
            self._write(line[:-1] + f', "crc": "{crc:08x}"}}\n'.encode())

    def _write(self, line: bytes) -> None:
        with write_errors(self.path, self._instead):
            new = not self.path.exists()
            fd = open_private(self.path, os.O_RDWR | os.O_APPEND)
            try:
                os.ftruncate(fd, self._size)  # a torn line
                left = line
                while left:  # a disk that is nearly full takes a part
                    left = left[os.write(fd, left) :]
                os.fsync(fd)
            finally:
                os.close(fd)
            if new:
                fsync_dir(self.path.parent)
