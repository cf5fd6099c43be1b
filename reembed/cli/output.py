"""What the command line writes to stdout, the only place it is written from.

Texts are cleaned before they are laid out, so that a secret is found before a table folds it; JSON
before it is written, text by text, so that it stays JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from reembed.errors import OutputError
from reembed.redaction import redacted_data, redacted_values
from reembed.redaction.terminal import CleanStream, harmless, json_harmless


def show(what: RenderableType) -> None:
    """Print a table or a text as Rich does. Raises as `say`."""
    with _writing():
        # Markup off: an id may hold brackets.
        _CleanConsole(
            file=_unwrapped(), highlight=False, markup=False, emoji=False,
            soft_wrap=not sys.stdout.isatty(),
        ).print(what, crop=False)  # fmt: skip


class _CleanConsole(Console):
    """Cleans every text that it lays out."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        if isinstance(renderable, str):
            renderable = _clean(renderable)
        elif isinstance(renderable, Text) and (clean := _clean(renderable.plain)) != str(
            renderable
        ):
            renderable = Text(clean, renderable.style, justify=renderable.justify)
        return super().render(renderable, options)


def _clean(text: str) -> str:
    return harmless(redacted_values(text))


def _unwrapped() -> Any:
    """Stdout for what is clean already and holds Rich's own colours."""
    return sys.stdout.clean if isinstance(sys.stdout, CleanStream) else sys.stdout


def say(text: str, end: str = "\n") -> None:
    """Print a text. A reader that has gone (`| head`) is no error: the work is done.

    Raises:
        OutputError: stdout is a file that cannot be written, such as on a full disk.
    """
    with _writing():
        print(_clean(text), end=end)


def say_json(document: dict[str, Any], indent: int | None = 2) -> None:
    """Print one JSON document. Raises as `say`."""
    clean = redacted_data(document, words=False)
    with _writing():
        print(json_harmless(json.dumps(clean, ensure_ascii=False, indent=indent)))


def say_json_line(document: dict[str, Any]) -> None:
    """Print one of many JSON documents, on a line. Raises as `say`."""
    say_json(document, indent=None)


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
