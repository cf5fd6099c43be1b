"""Manifests from the tests' old model to their new one, and what came of them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from reembed.manifest import Manifest, Model
from reembed.migration import Migration
from reembed.run.directory import RunDir
from tests.support.texts import CASES


def manifest_data(url: str, **changes: Any) -> dict[str, Any]:
    """A manifest from `docs` of the model `old` to the model `new`; `a__b=x` sets `a: {b: x}`."""
    data: dict[str, Any] = {
        "name": "move",
        "source": {
            "url": url,
            "collection": "docs",
            "model": {"provider": "python", "name": "counting_model:old"},
        },
        "model": {"provider": "python", "name": "counting_model:new", "dimensions": 64},
    }
    for path, value in changes.items():
        *sections, key = path.split("__")
        place = data
        for section in sections:
            place = place.setdefault(section, {})
        place[key] = value
    return data


def write_manifest(folder: Path, url: str, file: str = "m.yaml", **changes: Any) -> Path:
    """A manifest file with the models beside it."""
    shutil.copy(CASES / "counting_model.py", folder)
    path = folder / file
    path.write_text(yaml.safe_dump(manifest_data(url, **changes), sort_keys=False))
    return path


def write_group_manifest(
    folder: Path, url: str, collections: Any = "*", file: str = "m.yaml", **changes: Any
) -> Path:
    """As `write_manifest`, for several collections."""
    path = write_manifest(folder, url, file, source__collections=collections, **changes)
    data = yaml.safe_load(path.read_text())
    del data["source"]["collection"]
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return path


def model_of(manifest: Manifest) -> Model:
    """The model of a manifest that names one."""
    model = manifest.new_model
    assert model is not None, "its vectors are kept"
    return model


def migration(path: Path) -> Migration:
    return Migration(Manifest.load(path))


def run_dir(path: Path) -> RunDir:
    """The newest run of a manifest."""
    run = RunDir.latest(Manifest.load(path).state_dir)
    assert run is not None
    return run


def quarantined(run: RunDir) -> dict[str, str]:
    """Id to reason."""
    table = pq.read_table(run.path / "quarantine.parquet")
    return dict(
        zip(table.column("id").to_pylist(), table.column("reason").to_pylist(), strict=True)
    )
