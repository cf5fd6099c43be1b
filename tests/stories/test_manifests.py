"""The manifests that come with reembed: each loads, and the committed schema is the code's own."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from reembed.manifest import Manifest, json_schema

FOLDER = Path(__file__).resolve().parents[2] / "manifests"
SCHEMA = FOLDER / "manifest.schema.json"
MANIFESTS = sorted(FOLDER.glob("*.yaml"))


def test_each_scenario_has_a_manifest() -> None:
    assert {path.stem for path in MANIFESTS} >= {
        "demo",
        "openai-1536",
        "ollama-nomic-768",
        "chroma-server",
        "mem0-openai-to-nomic",
        "pgvector-table",
        "nightly",
    }


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_manifest_is_valid(path: Path) -> None:
    Manifest.load(path)
    jsonschema.validate(
        yaml.safe_load(path.read_text("utf-8")), json.loads(SCHEMA.read_text("utf-8"))
    )
    assert path.read_text("utf-8").startswith(
        "# yaml-language-server: $schema=manifest.schema.json\n"
    ), "an editor finds the schema by this line"


def test_schema_is_current() -> None:
    assert json.loads(SCHEMA.read_text("utf-8")) == json_schema(), (
        "run: reembed schema > manifests/manifest.schema.json"
    )


def test_schema_is_a_schema_and_refuses_what_the_code_refuses() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())
    validator = jsonschema.Draft202012Validator(json_schema())
    good = yaml.safe_load((FOLDER / "openai-1536.yaml").read_text("utf-8"))
    assert validator.is_valid(good)
    assert not validator.is_valid(good | {"verfiy": {}})
    assert not validator.is_valid({key: good[key] for key in ("name", "source")})
    assert not validator.is_valid(good | {"name": "../escape"})


def test_every_key_is_described_for_editors() -> None:
    schema = json_schema()
    sections = [schema, *schema["$defs"].values()]
    silent = [
        f"{section['title']}.{key}"
        for section in sections
        for key, value in section.get("properties", {}).items()
        if "description" not in value and "$ref" not in value and "anyOf" not in value
    ]
    assert not silent
