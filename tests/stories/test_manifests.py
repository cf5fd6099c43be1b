"""The manifests that come with reembed: each loads, and the committed schema is the code's own."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from reembed.cutover.hooks import run_hook
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


FAKE = """#!/bin/bash
echo "$(basename $0) $*" >> calls
for one; do case $one in @*) cp "${one#@}" sent.json ;; esac; done
"""
"""A program that notes how it was called, and keeps what it would send."""


def ways_to_configure() -> list[tuple[str, str]]:
    """`swap.before` and `swap.after` of mem0's manifest, those too that stand in comments."""
    text = (FOLDER / "mem0-openai-to-nomic.yaml").read_text("utf-8").partition("\nswap:")[2]
    found = [re.findall(rf"^  (?:# )?{hook}: (.*)$", text, re.M) for hook in ("before", "after")]
    return list(zip(*found, strict=True))


@pytest.mark.parametrize(("before", "after"), ways_to_configure())
@pytest.mark.parametrize("action", ["swap", "rollback"])
def test_mem0s_hooks_stop_the_agent_and_start_it_with_what_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str, after: str, action: str
) -> None:
    for name in ("docker", "systemctl", "curl"):
        (tmp_path / name).write_text(FAKE)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "deployed").mkdir()
    (tmp_path / "config.json").write_text(f'"{action}"')
    for one in ("swap", "rollback"):
        (tmp_path / f"{one}.env").write_text(f'"{one}"')
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    variables = {"ACTION": action, "APPLICATION_CONFIG": str(tmp_path / "config.json")}
    after = after.replace("/etc/my-agent", "deployed")
    for hook in (before, after):
        assert run_hook(hook, variables, seconds=60, folder=tmp_path) is None
    stopped, started = (tmp_path / "calls").read_text().splitlines()[:2]
    assert " stop " in stopped and re.search(" (start|up --detach) ", started)
    places = [tmp_path / name for name in ("deployed/mem0.json", "sent.json", ".env")]
    assert [one.read_text() for one in places if one.exists()] == [f'"{action}"']


def test_mem0s_manifest_leads_through_every_way() -> None:
    ways = " ".join(after for _, after in ways_to_configure())
    assert len(ways_to_configure()) == 4
    for one in ("docker compose start", "/configure", ".env", "systemctl"):
        assert one in ways
