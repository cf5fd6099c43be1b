"""The console sessions that README and docs/ show."""

from __future__ import annotations

import re
from pathlib import Path


def commands(page: Path) -> list[tuple[str, list[str]]]:
    """Each command of a page's console sessions that begins with reembed, with the lines shown of
    its output."""
    found: list[tuple[str, list[str]]] = []
    for block in re.findall(r"```console\n(.*?)```", page.read_text("utf-8"), re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:].split("  #")[0].strip(), []))
            elif line.strip():
                found[-1][1].append(line)
    return [(command, lines) for command, lines in found if command.startswith("reembed ")]
