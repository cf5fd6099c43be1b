"""What a command says on its way, on stderr and in a log file: progress, notes, its error.

One line is one thing said. As text it begins with the time, but for those on a terminal; with
`--log-format json` it is one JSON object (docs/running.md has the fields). A log file holds what
`-v` says, whatever stderr is asked for, and only its owner may read it. Secrets are starred in
both: stderr is cleaned by `redaction.terminal`, the file here.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from reembed.errors import ReembedError
from reembed.redaction import redacted
from reembed.redaction.terminal import harmless, json_harmless
from reembed.run.disk import open_private, write_errors

Level = Literal["debug", "info", "warning", "error"]
OUTPUT = "choose another file with --log-file"
LIBRARIES = ("httpx", "httpcore", "openai", "chromadb", "psycopg")
"""Whose own log is told with -v, from its level INFO on."""


@dataclass
class Log:
    """Where lines go, and which; the options of the command line set it before the command runs.

    Attributes:
        command: at work now.
        manifest: of the migration that the command is about; None without one.
        as_json: whether a line is a JSON object.
        verbose, quiet: whether stderr is told more, or errors alone.
    """

    command: str = ""
    manifest: Path | None = None
    as_json: bool = False
    verbose: bool = False
    quiet: bool = False

    def __post_init__(self) -> None:
        self._file: IO[str] | None = None
        self._handler: logging.Handler | None = None
        self._lock = threading.RLock()

    def write_to(self, path: Path) -> None:
        """Append to a file from now on.

        Raises:
            PreflightError: it cannot be written.
        """
        with write_errors(path, OUTPUT):
            fd = open_private(path, os.O_WRONLY | os.O_APPEND)
        self._file = os.fdopen(fd, "a", encoding="utf-8", errors="backslashreplace", buffering=1)

    def close(self) -> None:
        """Close the file, and hear no library any more."""
        with self._lock:
            file, self._file = self._file, None
            if self._handler is not None:
                logging.getLogger().removeHandler(self._handler)
                self._handler = None
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()

    @property
    def bars(self) -> bool:
        """Whether a line on the terminal may be drawn again and again."""
        return sys.stderr.isatty() and not (self.as_json or self.quiet)

    def line(
        self, level: Level, event: str, message: str, *, unsaid: bool = False, **fields: Any
    ) -> None:
        """Say one thing.

        Args:
            event: what kind of thing, for programs.
            unsaid: whether it goes to the log file alone.
            fields: what else the JSON object has.
        """
        wanted = level == "error" or (not self.quiet and (level != "debug" or self.verbose))
        document = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "level": level, "event": event,
            "command": self.command, "message": message, **fields,
        }  # fmt: skip
        with self._lock:
            if wanted and not unsaid:
                self._to_stderr(document)
            if self._file is not None:
                self._to_file(document)

    def _to_stderr(self, document: dict[str, Any]) -> None:
        if self.as_json:
            text = json_harmless(json.dumps(document, ensure_ascii=False))
        elif sys.stderr.isatty() or document["level"] == "error":
            text = str(document["message"])
        else:
            text = f"{document['time']} {document['message']}"
        try:
            print(text, file=sys.stderr, flush=True)
        except (OSError, ValueError):  # nobody reads it any more; the command goes on
            self.quiet = True

    def _to_file(self, document: dict[str, Any]) -> None:
        assert self._file is not None
        if self.as_json:
            text = json_harmless(redacted(json.dumps(document, ensure_ascii=False)))
        else:
            told = f"{document['time']} {document['level']}: {document['message']}"
            text = harmless(redacted(told.replace("\n", " ")))
        try:
            self._file.write(f"{text}\n")
        except OSError as error:
            self._file = None
            told = f"the log file cannot be written any more: {error.strerror}"
            self.line("warning", "log", told)

    def error(self, error: ReembedError, *, told: bool = False) -> None:
        """The error that a command ends with.

        Args:
            told: whether stdout has it already, so that stderr is for programs alone.
        """
        if self.as_json:
            self.line("error", "error", **error.to_dict())
            return
        hint = f"\n  {error.hint}" if error.hint else ""
        self.line("error", "error", f"error: {error.message}{hint}", unsaid=told)

    def listen(self) -> None:
        """Take up what libraries log: warnings always, and with -v or a log file more."""
        self._handler = _Handler(self)
        logging.getLogger().addHandler(self._handler)
        for name in LIBRARIES:
            logging.getLogger(name).setLevel(logging.INFO)


class _Handler(logging.Handler):
    def __init__(self, log: Log) -> None:
        super().__init__(logging.INFO)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        level: Level = "debug" if record.levelno < logging.WARNING else "warning"
        self._log.line(level, "library", f"{record.name}: {record.getMessage()}")


LOG = Log()
"""Of this process."""
