"""The draft of a manifest: every option is there, as a line that can be used as it stands."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import yaml

from reembed.commands.discover import discover
from reembed.commands.draft import draft_yaml
from reembed.manifest import Manifest, Model, json_schema
from reembed.migration import Migration
from tests.support.chroma_data import chroma
from tests.support.commands import Command

OPTION = re.compile(r"^( *)# (\w+: .*  # \S.*)$")
GIVEN: dict[str, Any] = {
    "name": "move",
    "source": {"url": "chroma:./db", "collection": "a: b # c", "model": None},
    "model": {"provider": "static", "name": "wordllama"},
    "line_breaks": "space",
}


def keys(schema: dict[str, Any]) -> set[str]:
    """`section.key` of every key that a manifest may have, by its JSON Schema."""
    found = set()
    for key, field in schema["properties"].items():
        sections = [schema["$defs"][one] for one in re.findall(r"#/\$defs/(\w+)", str(field))]
        found |= {f"{key}.{inner}" for section in sections for inner in section["properties"]}
        found |= set() if sections else {key}
    return found


def lines_of(text: str) -> dict[str, int]:
    """`section.key` of every key in a draft, commented or not, to its line's number."""
    found, section = {}, ""
    for number, line in enumerate(text.splitlines()):
        option = OPTION.match(line)
        shown = f"{option[1]}{option[2]}" if option else line
        key = re.match(r"( *)(\w+):(.*)", shown)
        if key and not key[1] and not key[3] and not option:
            section = f"{key[2]}."
        elif key and len(key[1]) < 4:
            name = f"{section}{key[2]}"
            assert name not in found, f"{name} is there twice"
            found[name] = number
    return found


def parsed(text: str) -> Manifest:
    return Manifest.parse(yaml.safe_load(text), Path("/somewhere"))


def test_every_key_is_a_line_once() -> None:
    assert lines_of(draft_yaml(GIVEN)).keys() == keys(json_schema())


def test_it_says_what_the_keys_alone_say_and_editors_agree() -> None:
    text = draft_yaml(GIVEN)
    assert parsed(text) == Manifest.parse(GIVEN, Path("/somewhere"))
    jsonschema.validate(yaml.safe_load(text), json_schema())


def test_any_option_may_lose_its_mark() -> None:
    lines, plain = draft_yaml(GIVEN).splitlines(), parsed(draft_yaml(GIVEN))
    options = [number for number, line in enumerate(lines) if OPTION.match(line)]
    assert len(options) == len(keys(json_schema())) - 7, "all but those of GIVEN"
    schema = json_schema()
    valid = jsonschema.validators.validator_for(schema)(schema)
    for number in options:
        line = OPTION.sub(r"\1\2", lines[number])
        text = "\n".join([*lines[:number], line, *lines[number + 1 :]])
        assert parsed(text) == plain, line
        valid.validate(yaml.safe_load(text))


def test_all_options_may_lose_their_marks() -> None:
    text = "\n".join(OPTION.sub(r"\1\2", line) for line in draft_yaml(GIVEN).splitlines())
    assert parsed(text) == parsed(draft_yaml(GIVEN))


@pytest.mark.parametrize("section", ["target", "embed", "verify", "swap", "follow", "watch"])
def test_a_section_of_comments_alone_is_as_none(section: str) -> None:
    assert parsed(yaml.safe_dump(GIVEN | {section: None})) == parsed(yaml.safe_dump(GIVEN))


@pytest.mark.parametrize(
    ("section", "told"), [("source", "source"), ("model", "model"), ("name", "name")]
)
def test_what_has_to_be_there_may_not_be_empty(section: str, told: str) -> None:
    with pytest.raises(Exception, match=told):
        parsed(yaml.safe_dump(GIVEN | {section: None}))


def test_a_draft_names_a_schema_that_is_there_and_runs(
    command: Command, tmp_path: Path, database: Path
) -> None:
    output = tmp_path / "m.yaml"
    assert command(
        "init", f"chroma:{database}", "--model", "python:counting_model:new", "-o", output
    ).code == 0  # fmt: skip
    text = output.read_text()
    place = re.match(r"# yaml-language-server: \$schema=(\S+)\n", text)
    assert place is not None
    schema = json.loads((tmp_path / place[1]).read_text())
    assert schema == json_schema()
    jsonschema.validate(yaml.safe_load(text), schema)
    model = Manifest.load(output).model
    assert isinstance(model, Model) and model.name == "counting_model:new"


def test_text_that_lies_in_the_metadata_is_found(tmp_path: Path) -> None:
    with chroma(tmp_path / "db") as client:
        notes = client.create_collection("notes")
        notes.add(
            ids=[str(i) for i in range(30)],
            embeddings=np.array([[i, 1, 2] for i in range(30)], np.float32),
            metadatas=[
                {"title": "A note", "body": f"The body of note {i} says more.", "kind": "x" * 99}
                for i in range(30)
            ],
        )
    found = discover(f"chroma:{tmp_path / 'db'}")
    assert found.manifest["text"] == "{metadata.body}"
    assert Migration(Manifest.parse(found.manifest, tmp_path)).manifest.text == "{metadata.body}"
