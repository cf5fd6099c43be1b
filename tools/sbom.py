"""`make build`: the bill of materials of a wheel, in CycloneDX's form.

    python tools/sbom.py CYCLONEDX requirements.lock DIST

It lists, with their hashes, the locked packages that an installation with the locked extras has,
and not what tests and tools bring besides. Which those are, the packages say that are installed
where this runs.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = "reembed-pipeline"
EXTRAS = frozenset({"static", "openai-tokens", "pgvector"})
"""The extras that the lock holds."""


def needed(project: str = PROJECT, extras: frozenset[str] = EXTRAS) -> set[str]:
    """Names of all packages that a project needs on this system, its own excluded."""
    found: set[tuple[str, str]] = set()
    ahead = [(project, extra) for extra in ("", *extras)]
    while ahead:
        name, extra = ahead.pop()
        try:
            wanted = requires(name) or []
        except PackageNotFoundError:  # for another system, or one that is only declared
            continue
        for line in wanted:
            requirement = Requirement(line)
            if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
                continue
            for part in ("", *requirement.extras):
                one = (canonicalize_name(requirement.name), part)
                if one not in found:
                    found.add(one)
                    ahead.append(one)
    return {name for name, _ in found}


def entries(lock: str) -> list[tuple[str, str]]:
    """Name and lines of each entry of a lock, without its comments."""
    found: list[tuple[str, str]] = []
    for entry in re.split(r"\n(?=[a-zA-Z0-9])", lock):
        name = re.match(r"([A-Za-z0-9._-]+)==", entry)
        if name:
            kept = [line for line in entry.splitlines() if not line.lstrip().startswith("#")]
            found.append((canonicalize_name(name[1]), "\n".join(kept).rstrip(" \\")))
    return found


def shipped(lock: str) -> str:
    """The entries of a lock that an installation has."""
    names = needed()
    return "".join(f"{text}\n" for name, text in entries(lock) if name in names)


def write_sbom(program: str, lock: Path, out: Path) -> None:
    """Let cyclonedx-bom write it, and add which version it is of."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        requirements.write(shipped(lock.read_text("utf-8")))
        requirements.flush()
        subprocess.run(
            [program, "requirements", "--pyproject", "pyproject.toml", "--mc-type", "library",
             "--output-reproducible", "--of", "JSON", "-o", str(out), requirements.name],
            check=True, stderr=subprocess.PIPE,
        )  # fmt: skip
    bom = json.loads(out.read_text("utf-8"))
    component = bom["metadata"]["component"]
    component["version"] = version(PROJECT)
    component["purl"] = f"pkg:pypi/{PROJECT}@{version(PROJECT)}"
    out.write_text(json.dumps(bom, indent=1) + "\n", "utf-8")
    print(f"{out}: {len(bom['components'])} packages")


if __name__ == "__main__":
    program, locked, dist = sys.argv[1:]
    name = f"{PROJECT.replace('-', '_')}-{version(PROJECT)}.cdx.json"
    write_sbom(program, Path(locked), Path(dist) / name)
