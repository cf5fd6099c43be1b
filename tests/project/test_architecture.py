"""docs/architecture.md says what is there: packages, levels, files and what they hold."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.project.test_imports import LEVELS, PACKAGE

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text("utf-8")


def section(title: str) -> str:
    """The part of the page below a heading."""
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S)
    assert found, f"there is no {title!r}"
    return found[1]


def rows(text: str) -> list[list[str]]:
    """The cells of a table, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_its_levels_are_those_that_the_imports_are_held_to() -> None:
    listed = [
        (int(number), tuple(re.findall(r"`([^`]+)`", names)))
        for number, names, _ in rows(section("Who imports whom"))
    ]
    assert listed == list(enumerate(LEVELS, 1))


def test_every_package_has_a_level_and_so_a_line() -> None:
    faces = {"__init__", "live", "integrations"}
    there = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert there - faces - {"__pycache__"} == {name for names in LEVELS for name in names}


def names_in(path: Path) -> set[str]:
    """What a file defines, at its top or in a class."""
    found = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
    return found


def test_each_decision_is_where_the_page_says() -> None:
    decisions = rows(section("Where it is decided"))
    assert len(decisions) >= 10
    for question, where in decisions:
        files = re.findall(r"`(reembed/[\w/.]+)`(?: \(((?:`\w+`(?:, )?)+)\))?", where)
        assert 1 <= len(files) <= 2, f"{question}: at most two files to open"
        for name, held in files:
            assert (ROOT / name).exists(), f"{question}: there is no {name}"
            missing = set(re.findall(r"`(\w+)`", held)) - (names_in(ROOT / name) if held else set())
            assert not missing, f"{question}: {name} has no {missing}"


def test_other_files_that_it_names_are_there() -> None:
    for name in re.findall(r"`([a-z_]+/[\w/]+\.py)`", PAGE):
        assert (PACKAGE / name).exists() or (ROOT / name).exists(), f"there is no {name}"
    for name in re.findall(r"\]\(([\w.-]+\.md)\)", PAGE):
        assert (ROOT / "docs" / name).exists(), f"there is no docs/{name}"


def test_what_it_lists_of_a_run_directory_is_what_the_code_writes() -> None:
    sources = "\n".join(path.read_text("utf-8") for path in PACKAGE.rglob("*.py"))
    for names, _ in rows(section("What a run directory holds")):
        for name in re.findall(r"`([^`]+)`", names):
            assert f'"{name.rstrip("/")}"' in sources, f"nothing writes {name}"


def test_modules_that_the_code_names_are_there() -> None:
    roots = (PACKAGE, ROOT / "tests", ROOT / "tools")
    there = {path.relative_to(ROOT).as_posix() for root in roots for path in root.rglob("*.py")}
    for path in sorted(PACKAGE.rglob("*.py")):
        for name in re.findall(r"`([a-z_/]+\.py)`", path.read_text("utf-8")):
            assert any(f"/{one}".endswith(f"/{name}") for one in there), f"{path}: no {name}"
