"""What `make test` loads into pytest."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.plugins import in_memory

ROOT = Path(__file__).resolve().parents[2]
TEST = "def test_where(tmp_path):\n    assert str(tmp_path).startswith({!r})\n"


def test_a_folder_is_fit_that_has_room_and_runs_programs(tmp_path: Path) -> None:
    assert in_memory.is_fit(tmp_path, 1)
    assert list(tmp_path.iterdir()) == []
    assert not in_memory.is_fit(tmp_path, 1 << 60)
    assert not in_memory.is_fit(tmp_path / "absent", 1)


def test_who_says_where_to_is_heard(tmp_path: Path) -> None:
    file = tmp_path / "test_it.py"
    file.write_text(TEST.format(str(tmp_path)))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "tests.plugins.in_memory", "-c", os.devnull,
         "--rootdir", str(tmp_path), str(file)],
        cwd=ROOT, env=os.environ | {"TMPDIR": str(tmp_path)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
