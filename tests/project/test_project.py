"""The project's own files: what is imported is declared, what is declared is locked."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import reembed

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
LOCK = (ROOT / "requirements.lock").read_text("utf-8")


def declared() -> list[Requirement]:
    extras = PROJECT["project"]["optional-dependencies"]
    groups = (PROJECT["project"]["dependencies"], *extras.values())
    return [Requirement(text) for group in groups for text in group]


def locked(lock: str = LOCK) -> dict[str, set[str]]:
    """Locked versions by distribution; some have one for each of several Pythons."""
    found: dict[str, set[str]] = {}
    for name, number in re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", lock, re.MULTILINE):
        found.setdefault(canonicalize_name(name), set()).add(number)
    return found


def third_party_imports() -> set[str]:
    found = set()
    for path in (ROOT / "reembed").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"reembed"}


def test_every_test_that_the_faults_name_exists() -> None:
    named = re.findall(
        r"`(tests/[\w/]+\.py)::([\w:]+)`", (ROOT / "docs/faults.md").read_text("utf-8")
    )
    assert len(named) > 50
    for path, name in named:
        found: list[ast.stmt] = ast.parse((ROOT / path).read_bytes()).body
        for part in name.split("::"):
            inside = [one for one in found if getattr(one, "name", None) == part]
            assert inside, f"{path} has no {name}"
            found = getattr(inside[0], "body", [])


FRAMEWORKS = {"langchain_core": "langchain-core", "llama_index": "llama-index-core"}
"""What `reembed.integrations` imports: it is installed beside the applications of tests/clients."""


def test_what_is_imported_is_declared() -> None:
    """A package that only comes along with another may be gone with its next version."""
    names = {canonicalize_name(requirement.name) for requirement in declared()}
    distributions = packages_distributions()
    undeclared = {
        module
        for module in third_party_imports()
        if not names
        & {
            canonicalize_name(name)
            for name in distributions.get(module, [FRAMEWORKS.get(module, module)])
        }
    }
    assert not undeclared


@pytest.mark.parametrize("requirement", declared(), ids=lambda requirement: requirement.name)
def test_what_is_declared_is_locked_in_its_range(requirement: Requirement) -> None:
    name = canonicalize_name(requirement.name)
    if name == "sentence-transformers":
        assert name not in locked(), "it brings PyTorch, which no checkout needs"
        return
    found = locked()
    if name in FRAMEWORKS.values():
        assert name not in found, "it is the applications', in tests/clients"
        found = locked((ROOT / "tests/clients/requirements.lock").read_text("utf-8"))
    assert found.get(name), f"{name} is not in its lock: run `make lock`"
    assert all(requirement.specifier.contains(number) for number in found[name])


LOCKS = ["requirements.lock", "requirements-tools.lock", "tests/clients/requirements.lock"]


@pytest.mark.parametrize("path", LOCKS)
def test_every_locked_line_has_a_hash_and_none_a_place(path: str) -> None:
    lock = (ROOT / path).read_text("utf-8")
    entries = re.split(r"\n(?=[a-zA-Z])", lock)[1:]
    assert entries and all("--hash=sha256:" in entry for entry in entries)
    assert not re.search(r"://|--(extra-)?index-url|--find-links|(^|[\s@=])/", lock)


def test_every_package_of_npm_has_a_hash_and_none_a_place() -> None:
    text = (ROOT / "tests" / "versions" / "npm" / "package-lock.json").read_text("utf-8")
    packages = json.loads(text)["packages"]
    assert packages.pop("")["dependencies"] == {
        "chromadb": packages["node_modules/chromadb"]["version"]
    }
    assert all(package["integrity"].startswith("sha512-") for package in packages.values())
    assert "resolved" not in text and "://" not in text


def test_the_clients_lock_holds_what_its_input_asks_for() -> None:
    folder = ROOT / "tests" / "clients"
    lines = (folder / "requirements.in").read_text("utf-8").splitlines()
    wanted = [Requirement(text) for line in lines if (text := line.partition("#")[0].strip())]
    found = locked((folder / "requirements.lock").read_text("utf-8"))
    assert len(wanted) >= 3
    for requirement in wanted:
        versions = found.get(canonicalize_name(requirement.name))
        assert versions, f"{requirement.name} is not in the clients' lock: run `make lock`"
        assert all(requirement.specifier.contains(number) for number in versions)


def test_torch_is_not_locked() -> None:
    assert not {"torch", "triton"} & locked().keys()


def test_version_has_one_source() -> None:
    assert version("reembed-pipeline") == reembed.__version__
    assert "version" not in PROJECT["project"]


def test_package_says_that_it_is_typed() -> None:
    assert (ROOT / "reembed" / "py.typed").is_file()


def test_make_lists_its_targets() -> None:
    help_text = subprocess.run(
        ["make", "help"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    phony = re.search(r"^\.PHONY: help (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    assert re.findall(r"^make ([\w-]+)", help_text, re.MULTILINE) == phony[1].split()
