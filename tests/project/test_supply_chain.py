"""What comes from elsewhere: installed by hash alone, listed with the wheel, looked up or said not
to be."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.project.test_project import LOCKS, ROOT, locked

sys.path.insert(0, str(ROOT / "tools"))
import sbom

MAKEFILE = (ROOT / "Makefile").read_text("utf-8")


@pytest.mark.parametrize("path", LOCKS)
def test_what_installs_is_locked_as_well(path: str) -> None:
    assert {"pip", "setuptools"} <= locked((ROOT / path).read_text("utf-8")).keys()


def test_the_makefile_installs_nothing_without_a_hash() -> None:
    installs = re.findall(r"^\t.*\bpip\b.* install .*$", MAKEFILE, re.MULTILINE)
    assert len(installs) >= 4
    for line in installs:
        assert "--require-hashes" in line or line.endswith("--no-build-isolation -e ."), line
    assert {"uv", "pip-audit", "cyclonedx-bom"} <= locked(
        (ROOT / "requirements-tools.lock").read_text("utf-8")
    ).keys()


def test_the_bill_of_materials_lists_what_is_shipped_and_no_tools() -> None:
    text = sbom.shipped((ROOT / "requirements.lock").read_text("utf-8"))
    names = locked(text).keys()
    assert {"chromadb", "numpy", "pyarrow", "psycopg", "wordllama", "tiktoken"} <= names
    assert not {"pytest", "mypy", "ruff", "hatchling", "pip", "hypothesis"} & names
    assert text.count("--hash=sha256:") >= len(names)
    assert "#" not in text


CYCLONEDX = """#!{python}
import json, pathlib, sys
out = pathlib.Path(sys.argv[sys.argv.index("-o") + 1])
lines = pathlib.Path(sys.argv[-1]).read_text().count("==")
out.write_text(json.dumps({{"metadata": {{"component": {{}}}}, "components": [0] * lines}}))
"""


def test_a_bill_says_which_version_it_is_of(tmp_path: Path) -> None:
    program = tmp_path / "cyclonedx-py"
    program.write_text(CYCLONEDX.format(python=sys.executable))
    program.chmod(0o755)
    sbom.write_sbom(str(program), ROOT / "requirements.lock", tmp_path / "out.json")
    component = json.loads((tmp_path / "out.json").read_text())["metadata"]["component"]
    assert component["purl"] == f"pkg:pypi/reembed-pipeline@{component['version']}"


def test_the_wheel_is_built_by_the_locked_backend_and_holds_the_package_alone(
    tmp_path: Path,
) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "reembed/py.typed" in names
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {
        "reembed", "reembed_pipeline",
    }  # fmt: skip


ANSWERS = {
    "clean": ('{"dependencies": [{"name": "a", "version": "1", "vulns": []}]}', 0, "none of 1"),
    "hit": (
        '{"dependencies": [{"name": "a", "version": "1", "vulns": [{"id": "CVE-1", '
        '"fix_versions": ["2"]}]}]}', 1, "a 1: CVE-1, mended in 2",
    ),
    "unknown": (
        '{"dependencies": [{"name": "a", "skip_reason": "not found"}]}', 2,
        "not audited: the source knows nothing of 1 of 1",
    ),
    "nothing": ('{"dependencies": []}', 2, "not audited"),
    "down": ("", 2, "could not ask its source (no route to host)"),
}  # fmt: skip


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_audit_that_could_not_look_is_no_clean_bill(tmp_path: Path, answer: str) -> None:
    text, code, told = ANSWERS[answer]
    program = tmp_path / "pip-audit"
    program.write_text(f"#!/bin/sh\ncat <<'E'\n{text}\nE\necho 'no route to host' >&2\n")
    program.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "tools/audit.py", str(program), "requirements.lock"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == code
    assert told in done.stdout
