"""Results as Python's prompt and a notebook show them: one line, and a small table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from reembed.display.markup import Child, h
from reembed.redaction import redacted_values
from reembed.redaction.terminal import harmless

LONGEST = 200
"""Characters of a line."""
CELL = "text-align: left; vertical-align: top"


@dataclass(frozen=True)
class Face:
    """What is shown of a result.

    Attributes:
        line: the whole of it in a few words.
        rows: what a notebook shows besides: a name and what it has, empty ones left out.
    """

    line: str
    rows: list[tuple[str, Child]] = field(default_factory=list)


class Shown:
    """A result with a short `repr` (one line) and a table for notebooks."""

    def _face(self) -> Face:
        raise NotImplementedError

    def __repr__(self) -> str:
        line = " ".join(self._face().line.split())
        line = f"{line[: LONGEST - 1]}…" if len(line) > LONGEST else line
        return f"<{type(self).__name__} {harmless(redacted_values(line))}>"

    def _repr_html_(self) -> str:
        face = self._face()
        rows = [
            h("tr", h("th", name, style=CELL, scope="row"), h("td", said, style=CELL))
            for name, said in face.rows if said not in (None, "", [])
        ]  # fmt: skip
        title = f"{type(self).__name__}: {face.line}"
        whole = h("div", h("strong", title), h("table", h("tbody", rows)) if rows else None)
        return harmless(redacted_values(whole, words=False))


def lines(texts: Iterable[str]) -> list[Child]:
    """Texts below one another, in one cell."""
    return [h("div", text) for text in texts]


def code(command: str) -> Child:
    """A command; nothing for none."""
    return h("code", command) if command else None


def parts(*texts: str) -> str:
    """What is not empty, between commas."""
    return ", ".join(text for text in texts if text)
