"""What the command line writes to stdout, the only place it is written from."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType

from reembed.errors import OutputError


def show(what: RenderableType) -> None:
    """Print a table or a text as Rich does. Raises as `say`."""
    with _writing():
        Console(highlight=False, soft_wrap=not sys.stdout.isatty()).print(what)


def say(text: str, end: str = "\n") -> None:
    """Print a text. A reader that has gone (`| head`) is no error: the work is done.

    Raises:
        OutputError: stdout is a file that cannot be written, such as on a full disk.
    """
    with _writing():
        print(text, end=end)


def say_json(document: dict[str, Any]) -> None:
    """Print one JSON document. Raises as `say`."""
    say(json.dumps(document, ensure_ascii=False, indent=2))


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        # What is left in the buffer would fail once more when Python ends.
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise OutputError(
                f"the output cannot be written: {error.strerror}",
                "The command has ended; `reembed status` says where it stands.",
            ) from error
