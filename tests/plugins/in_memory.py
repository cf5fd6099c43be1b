"""A pytest plugin that lets the tests keep their folders and servers in memory.

Loaded with `-p tests.plugins.in_memory`, which `make test` does. Most of what a test waits for is
the disk: every command and every Chroma database fsyncs often, and no test can tell whether a
machine that loses power would have kept what was written. Where /dev/shm is too small or runs no
programs, and where TMPDIR says where to, everything goes where it went.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")
ENOUGH = 3 << 30
"""Bytes that must be free there; all tests together write a sixth of that."""


@pytest.hookimpl(tryfirst=True)
def pytest_configure() -> None:
    """Before any folder is made; the workers of xdist inherit the variable."""
    if not os.environ.get("TMPDIR") and is_fit(MEMORY, ENOUGH):
        os.environ["TMPDIR"] = str(MEMORY)
        tempfile.tempdir = None


def is_fit(folder: Path, enough: int) -> bool:
    """Whether a folder has so many bytes free, and programs that lie in it can be run."""
    try:
        if shutil.disk_usage(folder).free < enough:
            return False
        with tempfile.TemporaryDirectory(dir=folder) as trial:
            program = Path(trial) / "program"
            program.write_text("#!/bin/sh\n")
            program.chmod(0o700)
            return subprocess.run([program], check=False).returncode == 0
    except OSError:
        return False
