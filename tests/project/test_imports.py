"""Imports point one way, and adapters are loaded only when they are needed.

A package imports from itself and from the levels above it in this list, and no module imports
itself by way of others. A new package is given its place here; one that does not fit is two things.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from reembed.manifest.adapters import STORES

PACKAGE = Path(__file__).resolve().parents[2] / "reembed"

LEVELS: tuple[tuple[str, ...], ...] = (
    ("redaction",),
    ("errors", "records", "progress", "display"),
    ("manifest",),
    ("run",),
    ("quality",),
    ("embedders",),
    ("stores",),
    ("applications", "report"),
    ("stages",),
    ("sync",),
    ("verify",),
    ("cutover",),
    ("backup",),
    ("migration",),
    ("commands",),
    ("cli",),
    ("__main__",),
)

STORE_ADAPTERS = {entry.module.split(".")[2] for entry in STORES if entry.module}
PUBLIC_FACES = {
    "live",
    "stores.chroma_function",
    "integrations",
    "integrations.langchain",
    "integrations.llamaindex",
}
"""What applications import; nothing here imports them."""


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


def level(name: str) -> int:
    """The level of a module: that of its package, or its own at the top."""
    top = name.partition(".")[0]
    for number, names in enumerate(LEVELS, 1):
        if top in names:
            return number
    raise AssertionError(f"reembed.{name} has no place: give it one in LEVELS")


INSIDE = sorted(MODULES.keys() - {""} - PUBLIC_FACES)


@pytest.mark.parametrize("name", INSIDE)
def test_a_package_imports_only_from_levels_below_it(name: str) -> None:
    for other in imports(name):
        assert other not in PUBLIC_FACES, f"reembed.{name} imports reembed.{other}"
        same_package = name.partition(".")[0] == other.partition(".")[0]
        lower = level(other) < level(name) or same_package
        assert lower, f"reembed.{name} imports reembed.{other}, which comes after it"


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = {name: imports(name) - {name} for name in MODULES if name}  # its names are lazy
    graph["report.gather"] -= {"report.html.page", "report.markdown"}  # `Report.to_html()`
    for start in graph:
        seen = set[str]()
        ahead = [*graph[start]]
        while ahead:
            one = ahead.pop()
            assert one != start, f"reembed.{start} imports itself by way of others"
            if one not in seen:
                seen.add(one)
                ahead += graph[one]


@pytest.mark.parametrize("name", INSIDE)
def test_adapters_are_imported_by_their_registry_alone(name: str) -> None:
    for other in imports(name):
        parts = other.split(".")
        if parts[0] == "stores" and parts[1:2] and parts[1] in STORE_ADAPTERS:
            assert name.startswith(f"stores.{parts[1]}"), f"reembed.{name} imports reembed.{other}"
        if other.startswith("embedders.providers."):
            assert name.startswith("embedders.providers."), (
                f"reembed.{name} imports reembed.{other}"
            )


def loaded(statement: str) -> set[str]:
    """The top-level modules that a new interpreter has loaded after `statement`."""
    code = f"import sys, json\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return {name.partition(".")[0] for name in json.loads(done.stdout)}


CLIENTS = {"chromadb", "openai", "ollama", "onnxruntime", "tokenizers", "wordllama", "grpc"}


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert not loaded("import reembed") & (CLIENTS | {"pyarrow", "numpy", "pydantic", "typer"})


def test_help_waits_for_nothing_that_a_command_works_with() -> None:
    assert not loaded("import reembed.cli") & (CLIENTS | {"pyarrow", "numpy", "pydantic", "yaml"})


@pytest.mark.parametrize(
    "module", ["cli", "manifest", "migration", "stores.registry", "embedders.registry"]
)
def test_clients_are_loaded_only_when_a_manifest_asks_for_them(module: str) -> None:
    assert not loaded(f"import reembed.{module}") & CLIENTS


def test_the_journal_is_written_and_read_through_its_events_alone() -> None:
    """So that a search for an event's class finds who writes it and who reads it."""
    wanted = {"journal.append", "journal.read"}
    for name in INSIDE:
        if name.startswith("run."):
            continue
        for node in ast.walk(MODULES[name]):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute):
                assert f"{node.value.attr}.{node.attr}" not in wanted, f"reembed.{name}"


def test_every_event_has_one_writer_and_readers() -> None:
    from reembed.run.events import EVENTS

    used: dict[str, list[str]] = {kind.__name__: [] for kind in EVENTS.values()}
    for name in INSIDE:
        if name.startswith("run.events"):
            continue
        for node in ast.walk(MODULES[name]):
            if isinstance(node, ast.Attribute) and node.attr in used:
                used[node.attr].append(name)
    moves = {"SwapBegun", "RollbackBegun", "SwapDone", "RollbackDone"}  # written by their action
    assert {name for name, users in used.items() if not users} <= moves
