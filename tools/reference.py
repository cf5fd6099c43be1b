"""Write the two reference pages of docs/ from the code: every manifest key, every command.

    python tools/reference.py

A test fails where a page is not what this makes of the code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import typer

from reembed.cli import app
from reembed.manifest import json_schema

DOCS = Path(__file__).resolve().parents[1] / "docs"
NOTE = "Made from the code by `tools/reference.py`. Do not change this page by hand.\n"


def pages() -> dict[str, str]:
    """File name in docs/ to what belongs into it."""
    return {
        "reference-manifest.md": "".join(_manifest()),
        "reference-commands.md": "".join(_commands()),
    }


def _manifest() -> Iterator[str]:
    schema = json_schema()
    known: dict[str, Any] = schema["$defs"]
    yield f"# Manifest reference\n\n{NOTE}\n"
    yield "Every key, with its default. [Writing a manifest](manifest.md) explains by example.\n"
    yield from _table("The manifest itself", schema, "")
    for name, field in schema["properties"].items():
        for inner in _inner(field):
            yield from _table(f"`{name}`", known[inner], name)
            for key, value in known[inner].get("properties", {}).items():
                for deeper in set(_inner(value)) - {"Model"}:  # told once, as `model`
                    yield from _table(f"`{name}.{key}`", known[deeper], key)


def _inner(field: dict[str, Any]) -> list[str]:
    """Names of the sections that a key holds, each once."""
    found = re.findall(r"#/\$defs/(\w+)", str(field))
    return list(dict.fromkeys(found))[:1]


def _table(title: str, section: dict[str, Any], name: str) -> Iterator[str]:
    yield f"\n## {title}\n\n"
    said = " ".join(str(section.get("description", "")).split())
    if said and name:
        yield f"{said}\n\n"
    yield "| key | takes | default | what it is |\n|---|---|---|---|\n"
    required = section.get("required", [])
    for key, field in section["properties"].items():
        given = "required" if key in required else _default(field)
        about = _cell(" ".join(str(field.get("description", "")).split()))
        yield f"| `{key}` | {_cell(_takes(field))} | {_cell(given)} | {about} |\n"


def _takes(field: dict[str, Any]) -> str:
    if "$ref" in field:
        return "a section"
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{one}`" for one in field["enum"])
    if "anyOf" in field or "allOf" in field or "oneOf" in field:
        parts = field.get("anyOf") or field.get("allOf") or field["oneOf"]
        found = [_takes(part) for part in parts if part.get("type") != "null"]
        return " or ".join(dict.fromkeys(found))
    words = {"string": "text", "integer": "a whole number", "number": "a number",
             "boolean": "true or false", "array": "a list", "object": "a mapping"}  # fmt: skip
    return words.get(str(field.get("type")), "any value")


def _default(field: dict[str, Any]) -> str:
    value = field.get("default")
    if value in (None, {}, [], ""):
        return ""
    if isinstance(value, dict):
        return "see below"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _commands() -> Iterator[str]:
    yield f"# Command reference\n\n{NOTE}\n"
    yield "What `reembed COMMAND --help` says. [Commands](commands.md) tells which to use when.\n"
    group = typer.main.get_command(app)
    assert hasattr(group, "commands")
    for name, command in sorted(group.commands.items()):
        if not command.hidden:
            yield from _command(name, command)


def _command(name: str, command: click.Command) -> Iterator[str]:
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.params if one.param_type_name == "option"
               and not getattr(one, "hidden", False)]  # fmt: skip
    usage = " ".join(["reembed", name, *(_metavar(one) for one in arguments)])
    yield f"\n## `{name}`\n\n```text\n{usage}{' [OPTIONS]' if options else ''}\n```\n\n"
    yield " ".join((command.help or "").split()) + "\n"
    if options:
        yield "\n| option | what it does |\n|---|---|\n"
    for option in options:
        names = ", ".join(f"`{one}`" for one in [*option.opts, *option.secondary_opts])
        about = " ".join(str(getattr(option, "help", "") or "").split())
        yield f"| {names} | {_cell(about)} |\n"


def _metavar(argument: Any) -> str:
    name = str(argument.metavar or str(argument.name).upper())
    name += "..." if argument.nargs == -1 else ""
    return name if argument.required else f"[{name}]"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    for name, text in pages().items():
        (DOCS / name).write_text(text, "utf-8")
