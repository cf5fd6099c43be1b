"""Mend what keeps a tool from working at all in its environment.

    python mend.py NAME

Run by the Python of that environment. Nothing is mended that a tool does or loses.
"""

from __future__ import annotations

import re
import sys
import sysconfig
from pathlib import Path

SITE = Path(sysconfig.get_path("purelib"))


def rebasis() -> None:
    """Write three functions as Python 3.11 reads them, and let the command line reach OpenAI's
    interface, which the package has."""
    for name in "observability/env.py", "observability/retry.py", "cli/_common.py":
        _replace(SITE / "rebasis" / name, r"^(def \w+)\[T\]\(", r"\1(")
    for name in "cli/_pipeline.py", "embed/registry.py":
        _replace(
            SITE / "rebasis" / name, r'(backend: str = )"sentence-transformers"', r'\1"openai"'
        )


def vdf_io() -> None:
    """Take out the modules of other stores: all are imported at the start, and fail to be."""
    for way in "export", "import":
        for path in (SITE / "vdf_io" / f"{way}_vdf").glob(f"*_{way}.py"):
            if path.name != f"chroma_{way}.py":
                path.unlink()


def _replace(path: Path, pattern: str, by: str) -> None:
    text, found = re.subn(pattern, by, path.read_text(), flags=re.MULTILINE)
    if not found:
        sys.exit(f"{path} is not as it was when this was written: no {pattern}")
    path.write_text(text)


MENDED = {"rebasis": rebasis, "vdf-io": vdf_io}

if __name__ == "__main__":
    MENDED.get(sys.argv[1], lambda: None)()
