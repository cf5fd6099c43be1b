"""Servers and clients of other versions of Chroma, each from an environment of its own.

`make test` installs two of them, `make test-matrix` all and names them in REEMBED_TEST_CHROMA.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CLIENT = Path(__file__).resolve().parents[1] / "versions" / "client.py"
ALL = "REEMBED_TEST_CHROMA" in os.environ
VERSIONS = tuple(os.environ.get("REEMBED_TEST_CHROMA", "1.0 1.5.5").split())


@dataclass(frozen=True)
class ChromaVersion:
    """One of them, such as `1.0`."""

    name: str

    @property
    def folder(self) -> Path:
        return Path(sys.prefix) / f"chroma-{self.name}" / "bin"

    @property
    def python(self) -> Path:
        return self.folder / "python"

    @property
    def server(self) -> Path:
        """Its program `chroma`."""
        return self.folder / "chroma"

    def ask(self, operation: str, url: str, model: str = "old") -> Any:
        """What `tests/versions/client.py` of this version sees, in a process of its own."""
        assert self.python.exists(), f"make .venv/chroma-{self.name}/.installed"
        done = subprocess.run(
            [self.python, "-P", "-W", "ignore", CLIENT, operation, url, model],
            capture_output=True, text=True, timeout=120, check=False,
            env=os.environ | {"ANONYMIZED_TELEMETRY": "False"},  # it waits for it at its end
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"Chroma {self.name}, {operation}: {done.stderr[-2000:]}")
        return json.loads(done.stdout.splitlines()[-1])
