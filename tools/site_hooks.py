"""What MkDocs does with our documents beside rendering them: README is the first page, and links to
files that are no pages are shown as their names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = re.compile(r"\[([^\]]+)\]\((?:\.\./)*((?:manifests|notebooks|SECURITY|LICENSE)[^)\s]*)\)")
"""A link to a file of the checkout that is no page of the site."""


def on_files(files: Files, config: Any) -> Files:
    """Add README as the first page."""
    text = (ROOT / "README.md").read_text("utf-8").replace("](docs/", "](")
    files.append(File.generated(config, "index.md", content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Name files of the checkout instead of linking to them."""
    return OUTSIDE.sub(lambda found: f"{found[1]} (`{found[2]}` in the checkout)", markdown)
