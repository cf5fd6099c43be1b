"""Every notebook runs from its first cell to its last, as a person would run it, offline."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))
NO_NETWORK = """
import socket
_connect = socket.socket.connect
def _refuse(self, address):
    if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
        raise OSError(f"a notebook reached for {address}")
    return _connect(self, address)
socket.socket.connect = _refuse
"""


def read(path: Path) -> dict[str, Any]:
    notebook: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return notebook


def code(path: Path) -> str:
    """The code cells one after the other, each under a line that names it."""
    cells = [cell for cell in read(path)["cells"] if cell["cell_type"] == "code"]
    return "\n\n".join(f"# {cell['id']}\n{''.join(cell['source'])}" for cell in cells)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path: Path, tmp_path: Path) -> None:
    script = tmp_path / f"{path.stem}.py"
    script.write_text(NO_NETWORK + code(path), "utf-8")
    environment = os.environ | {
        "TMPDIR": str(tmp_path), "ANONYMIZED_TELEMETRY": "False", "PYTHONWARNINGS": "default",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout, "a notebook shows something"
    assert not list(tmp_path.glob("reembed-notebook-*")), "it cleans up behind itself"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_stored_without_outputs_and_machine_names(path: Path) -> None:
    notebook = read(path)
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
    text = path.read_text("utf-8")
    assert not re.search(r"/(?:home|root|work|tmp|Users)/", text)


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS
