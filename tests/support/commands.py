"""The command line in this process, and what a run asked its models for."""

from __future__ import annotations

import json
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.texts import sentence


@dataclass
class Calls:
    """What `cases/counting_model.py` was asked for, by model name."""

    path: Path

    def texts(self, model: str) -> list[int]:
        """The hash of every text embedded, in order."""
        if not self.path.exists():
            return []
        lines = map(json.loads, self.path.read_text().splitlines())
        return [text for name, texts in lines if name == model for text in texts]

    def of(self, model: str, text: str) -> int:
        """How often a text was embedded."""
        return self.texts(model).count(zlib.crc32(text.encode()))

    def repeated(self, model: str, records: int) -> int:
        """How many of the first plain records' texts were embedded again, each time counted."""
        texts = {zlib.crc32(sentence(number).encode()) for number in range(records)}
        asked = Counter(text for text in self.texts(model) if text in texts)
        return sum(count - 1 for count in asked.values())

    def clear(self) -> None:
        self.path.unlink(missing_ok=True)


@dataclass
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document on stdout, in JSON that every reader takes."""

        def refuse(name: str) -> None:
            raise AssertionError(f"{name} is not JSON")

        return json.loads(self.out, parse_constant=refuse)


class Command:
    """`reembed` in this process, for its output and exit code: quicker than a process."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys = capsys
        self._monkeypatch = monkeypatch

    def __call__(self, *arguments: object) -> Outcome:
        import signal

        from reembed.cli.entry import main

        self._monkeypatch.setattr(sys, "argv", ["reembed", *map(str, arguments)])
        handler = signal.getsignal(signal.SIGTERM)
        self._capsys.readouterr()
        try:
            main()
        except SystemExit as end:
            code = end.code
        finally:
            signal.signal(signal.SIGTERM, handler)
        captured = self._capsys.readouterr()
        assert isinstance(code, int)
        return Outcome(code, captured.out, captured.err)

    def take(
        self, steps: Iterable[str | Callable[[], object]], codes: tuple[int, ...] = (0,)
    ) -> None:
        """Give the command lines among the steps, each of which must end with one of `codes`, and
        call the others."""
        for step in steps:
            if isinstance(step, str):
                done = self(*step.split())
                assert done.code in codes, (step, done.out, done.err)
            else:
                step()


REEMBED = [sys.executable, "-c", "from reembed.cli.entry import main; main()"]


def tree(folder: Path) -> Mapping[str, bytes]:
    """Every file below a folder with its bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
