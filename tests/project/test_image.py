"""The container image: small, without root, without secrets, of pinned versions; and it builds."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from importlib.metadata import metadata
from pathlib import Path

import pytest

from tests.project.test_project import ROOT

FILE = ROOT / "Dockerfile"
IMAGES = (FILE, ROOT / "manifests" / "schedules" / "Dockerfile")


def instructions(text: str) -> list[tuple[str, str]]:
    """Each instruction with its arguments; continued lines as one."""
    text = re.sub(r"^\s*#.*\n", "", text.replace("\\\n", " "), flags=re.MULTILINE)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return [(line.split()[0].upper(), line.partition(" ")[2].strip()) for line in lines]


def stages(text: str) -> list[list[tuple[str, str]]]:
    found: list[list[tuple[str, str]]] = []
    for name, rest in instructions(text):
        if name == "FROM":
            found.append([])
        found[-1].append((name, rest))
    return found


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.parent.name)
def test_an_image_is_pinned_and_nobody_in_it_is_root(path: Path) -> None:
    (*_, last) = stages(path.read_text("utf-8"))
    every = instructions(path.read_text("utf-8"))
    for name, rest in every:
        if name == "FROM":
            image = rest.split()[0]
            assert re.fullmatch(r"python:3\.\d+-slim", image), f"{image}: a version, not latest"
        assert name != "ADD", "COPY takes files of the checkout, and nothing from elsewhere"
        assert name != "ARG" and not re.search(r"(?i)key|token|secret|password", rest), rest
    (user,) = [rest for name, rest in last if name == "USER"]
    assert user.isdigit() and int(user) >= 1000, "Kubernetes' runAsNonRoot wants a number"
    after = [name for name, _ in last][[name for name, _ in last].index("USER") :]
    assert "RUN" not in after and "COPY" not in after, "the program cannot change itself"
    assert json.loads(dict(last)["ENTRYPOINT"]) == ["reembed"]


def test_the_image_of_a_checkout_has_no_tools_of_the_build() -> None:
    build, last = stages(FILE.read_text("utf-8"))
    assert not any("pip" in rest for name, rest in last if name == "RUN")
    assert [rest for name, rest in last if name == "COPY"] == [
        "--from=build /opt/reembed /opt/reembed"
    ]
    (extras,) = re.findall(r"'\.\[([\w,-]+)\]'", FILE.read_text("utf-8"))
    known = metadata("reembed-pipeline").get_all("Provides-Extra") or []
    assert set(extras.split(",")) <= set(known)
    assert any("--constraint constraints.txt" in rest for _, rest in build)


def test_nothing_is_sent_to_the_build_but_what_it_copies() -> None:
    first, *rest = [
        line for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines()
        if line and not line.startswith("#")
    ]  # fmt: skip
    let_in = {line[1:] for line in rest if line.startswith("!")}
    copied = {
        one for name, words in instructions(FILE.read_text("utf-8"))
        if name == "COPY" and "--from" not in words for one in words.split()[:-1]
    }  # fmt: skip
    assert first == "*"
    assert let_in == copied
    assert all((ROOT / one).exists() for one in copied)


def test_the_lock_without_hashes_names_each_version_once() -> None:
    (script,) = [
        rest for name, rest in instructions(FILE.read_text("utf-8"))
        if name == "RUN" and "constraints.txt" in rest and "grep" in rest
    ]  # fmt: skip
    script = script.replace("> constraints.txt", "")
    made = subprocess.run(["sh", "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    lines = made.stdout.splitlines()
    assert len(lines) > 100
    assert all(re.match(r"[a-z0-9._-]+(\[[\w,]+\])?==\S+( ;.*[^\\])?$", line) for line in lines)


@pytest.mark.long
@pytest.mark.timeout(0)
def test_the_image_builds_and_runs() -> None:
    if shutil.which("docker") is None or subprocess.run(["docker", "info"]).returncode:
        pytest.skip("there is no Docker daemon")
    subprocess.run(["docker", "build", "--quiet", "--tag", "reembed-test", ROOT], check=True)
    run = ["docker", "run", "--rm", "--read-only", "--tmpfs", "/tmp", "reembed-test"]
    done = subprocess.run([*run, "--version"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    size = ["docker", "image", "inspect", "--format", "{{.Size}}", "reembed-test"]
    assert int(subprocess.check_output(size)) < 1_200_000_000
