"""The pages of docs/ that are made from the code, or quote it, are what the code says."""

from __future__ import annotations

import re
import sys

import pytest

from tests.project.test_project import ROOT

sys.path.insert(0, str(ROOT / "tools"))
import reference

DOCS = ROOT / "docs"


@pytest.mark.parametrize("name", sorted(reference.pages()))
def test_reference_pages_are_what_the_code_says(name: str) -> None:
    assert (DOCS / name).read_text("utf-8") == reference.pages()[name], (
        "run: python tools/reference.py"
    )


def test_every_page_has_a_place_in_the_site() -> None:
    places = set(re.findall(r"- ([\w-]+\.md)", (ROOT / "mkdocs.yml").read_text("utf-8")))
    assert places == {page.name for page in DOCS.glob("*.md")} | {"index.md"}


def test_messages_that_troubleshooting_explains_are_ours() -> None:
    page = (DOCS / "troubleshooting.md").read_text("utf-8")
    _, table = page.split("## By message")
    quoted = re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)
    assert len(quoted) >= 9
    code = " ".join(path.read_text("utf-8") for path in (ROOT / "reembed").rglob("*.py"))
    code = re.sub(r"\"\s*f?\"", "", " ".join(code.split()))
    for message in quoted:
        parts = [part.strip(" ,") for part in re.split(r"\d+", message)]
        assert all(part in code for part in parts), f"no message says: {message}"
