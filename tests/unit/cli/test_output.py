"""stdout that cannot be written, or that nobody reads to the end."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.commands import REEMBED

FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="only Linux has a device that is always full")
@pytest.mark.parametrize("arguments", [["schema"], ["--version"], ["schema", "--json"]])
def test_a_result_that_could_not_be_written_is_an_error(arguments: list[str]) -> None:
    with FULL.open("wb") as full:
        done = subprocess.run(
            [*REEMBED, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 5
    assert "the output cannot be written: No space left" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_a_reader_that_has_gone_is_no_error() -> None:
    with subprocess.Popen(
        [*REEMBED, "schema"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
    assert (process.returncode, said) == (0, "")
