"""The documents: every link leads somewhere, every command that is shown is one, and README stays
short enough to be read."""

from __future__ import annotations

import re
import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import typer

from reembed.cli.app import app
from tests.support.sessions import commands

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]


def anchors(page: Path) -> set[str]:
    """What a link may name behind `#`: the headings as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).strip().replace(" ", "-") for one in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), f"{page.name} links to {link}, which is not there"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{page.name} links to {link}, which has no heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_import_that_is_shown_is_one(page: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    shown = r"^from (reembed[\w.]*) import ([\w, ]+)"
    for module, names in re.findall(shown, "\n".join(blocks), re.MULTILINE):
        spec = find_spec(module)
        assert spec is not None, f"{page.name}: there is no {module}"
        assert spec.origin is not None
        for name in map(str.strip, names.split(",")):
            known = find_spec(f"{module}.{name}") if spec.submodule_search_locations else None
            there = known or re.search(rf"\b{name}\b", Path(spec.origin).read_text("utf-8"))
            assert there, f"{page.name}: {module} has no {name}"


def test_every_page_is_reached_from_readme() -> None:
    reached = {ROOT / "README.md"}
    ahead = [*reached]
    while ahead:
        page = ahead.pop()
        for link in re.findall(r"\]\(([^)\s#]+)", page.read_text("utf-8")):
            target = (page.parent / link).resolve()
            if target.suffix == ".md" and target.exists() and target not in reached:
                reached.add(target)
                ahead.append(target)
    assert reached >= set(PAGES)


def test_readme_is_short_and_names_the_two_commands_of_a_checkout() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.split()) <= 900
    assert re.findall(r"^\$ (make [\w-]+)", text, re.MULTILINE) == ["make demo", "make test"]


@pytest.mark.parametrize(
    "page", [page for page in PAGES if commands(page)], ids=lambda one: one.stem
)
def test_every_command_of_a_session_is_taken_as_it_stands(page: Path) -> None:
    program: Any = typer.main.get_command(app)
    for line, _ in commands(page):
        words = shlex.split(line)[1:]
        with program.make_context("reembed", list(words), resilient_parsing=True) as context:
            name, command, rest = program.resolve_command(context, words)
            command.make_context(
                name, list(rest), parent=context
            ).close()  # raises for what it does not know
