"""Model files: in a folder, or inside an installed package (`package:MODULE[/FILE]`)."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path
from typing import Any

from reembed.errors import ManifestError, MissingExtraError

SCHEME = "package:"
EXTRAS = {"wordllama": "'reembed-pipeline[static]'"}
"""Packages of models that an extra brings; the others need none of their dependencies."""


def find(name: str, base_dir: Path, setting: str) -> Path:
    """The file or folder that `name` stands for.

    Args:
        setting: where `name` stands in the manifest, for messages.

    Raises:
        MissingExtraError: the package is not installed.
        ManifestError: there is no such file.
    """
    if name.startswith(SCHEME):
        module, _, inner = name.removeprefix(SCHEME).partition("/")
        path = package_folder(module, setting) / inner
    else:
        path = base_dir / Path(name).expanduser()
    if not path.exists():
        raise ManifestError(
            f"{setting}: there is no {path}",
            "Give a path relative to the manifest's folder, or package:MODULE.",
        )
    return path


def package_folder(module: str, setting: str) -> Path:
    """The folder of an installed package, which is not imported. Raises MissingExtraError."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        name = module.partition(".")[0].replace("_", "-")
        raise MissingExtraError(
            f"{setting}: the package {module} is not installed",
            f"pip install {EXTRAS.get(module, '--no-deps ' + name)}",
        )
    return Path(spec.submodule_search_locations[0])


def read_json(*paths: Path) -> dict[str, Any]:
    """The first of these JSON files that exists, or an empty mapping.

    Raises:
        ManifestError: it is no JSON.
    """
    for path in paths:
        if path.is_file():
            try:
                data = json.loads(path.read_text("utf-8"))
            except ValueError as error:
                raise ManifestError(f"{path}: is not JSON: {error}") from None
            return data if isinstance(data, dict) else {"modules": data}
    return {}


def sha256(*paths: Path) -> str:
    """Hash over the contents of files, hexadecimal."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
