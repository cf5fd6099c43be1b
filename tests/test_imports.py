"""Imports point one way, and adapters are loaded only when they are needed.

The ranks are the order in which the files are read: a module imports from the ranks below its own.
A new module is given its place here; one that does not fit is two things.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "reembed"

RANKS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    (
        "disk",
        "records",
        "template",
        "secret_scan",
        "store_url",
        "progress",
        "hooks",
        "guards",
        "owner",
    ),
    ("yaml_reader", "output"),
    ("manifest_sections", "manifest_errors"),
    ("manifest", "rundir", "quality"),
    ("mem0",),
    ("stores.base", "embedders.base", "engines.base"),
    ("spending",),
    ("embedders", "engines"),
    ("stores",),
    (
        "ledger",
        "vector_cache",
        "refusals",
        "mem0_plan",
        "swapkind",
        "leftovers",
        "lease",
        "carried",
        "together",
    ),
    ("difference", "corpus", "estimate", "shard_rows"),
    ("questions", "old_vectors"),
    ("searches",),
    (
        "plan",
        "export",
        "embed",
        "load",
        "load_live",
        "verify",
        "swap",
        "rollback",
        "clean",
        "mending",
    ),
    ("session", "results", "init", "live", "compare"),
    ("report",),
    ("building",),
    ("judging",),
    ("moving",),
    ("moving_back",),
    ("swapping", "cleaning"),
    ("migration",),
    ("cli",),
)
TOGETHER = {"quality", "mem0", "stores", "embedders", "engines", "report"}
"""Packages, whose files may import each other. Stages are no package: they never do."""

STORE_ADAPTERS = {"chroma", "pgvector"}
PROVIDERS = {"chroma", "ollama", "onnx", "openai", "python", "sentence_transformers", "static"}
ADAPTERS_ALLOWED = {"live"}
"""`reembed.live` is for Chroma's applications, and speaks to Chroma itself."""


def modules() -> dict[str, ast.Module]:
    """Every module of the package by its name without `reembed.`."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_bytes())
    return found


MODULES = modules()


def imports(name: str) -> set[str]:
    """The modules of the package that a module imports, anywhere in it."""
    found = set()
    for node in ast.walk(MODULES[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative imports hide where things are"
            assert node.module is not None
            found |= {
                full if (full := f"{node.module}.{alias.name}")[8:] in MODULES else node.module
                for alias in node.names
            }
    inside = {module[8:] for module in found if module.startswith("reembed.")}
    return {module for module in inside if module in MODULES}


def rank(name: str) -> int:
    """A module's rank, by its own name or else its package's."""
    for candidate in (name, name.partition(".")[0]):
        for number, names in enumerate(RANKS):
            if candidate in names:
                return number
    raise AssertionError(f"reembed.{name} has no place: give it one in RANKS")


@pytest.mark.parametrize("name", sorted(MODULES.keys() - {""}))
def test_imports_point_one_way(name: str) -> None:
    for other in imports(name):
        same_package = (
            name.partition(".")[0] == other.partition(".")[0] and name.partition(".")[0] in TOGETHER
        )
        lower = rank(other) < rank(name) or (rank(other) == rank(name) and same_package)
        assert lower, f"reembed.{name} imports reembed.{other}, which comes after it"


@pytest.mark.parametrize("name", sorted(MODULES.keys() - {""}))
def test_adapters_are_imported_by_their_registry_alone(name: str) -> None:
    if name in ADAPTERS_ALLOWED:
        return
    for other in imports(name):
        package, _, module = other.partition(".")
        if package == "stores" and not name.startswith("stores."):
            assert module in ("base", "registry"), f"reembed.{name} imports reembed.{other}"
        if package == "embedders" and name != other:
            assert module not in PROVIDERS, f"reembed.{name} imports reembed.{other}"
        if package == "stores" and module in STORE_ADAPTERS:
            assert name.startswith("stores.chroma"), f"reembed.{name} imports reembed.{other}"


def loaded(statement: str) -> set[str]:
    """The top-level modules that a new interpreter has loaded after `statement`."""
    code = f"import sys, json\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return {name.partition(".")[0] for name in json.loads(done.stdout)}


CLIENTS = {"chromadb", "openai", "ollama", "onnxruntime", "tokenizers", "wordllama", "grpc"}


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert not loaded("import reembed") & (CLIENTS | {"pyarrow", "numpy", "pydantic", "typer"})


@pytest.mark.parametrize(
    "module", ["cli", "manifest", "migration", "stores.registry", "embedders.registry"]
)
def test_clients_are_loaded_only_when_a_manifest_asks_for_them(module: str) -> None:
    assert not loaded(f"import reembed.{module}") & CLIENTS
