"""The manifest's JSON Schema, and what its keys are in words: the texts below the fields.

They are read from the source when somebody asks (the schema, a drafted manifest). pydantic's
`use_attribute_docstrings` reads them too, but at every start of every command.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

from reembed.manifest.manifest import Manifest, may_be_empty, section_of
from reembed.manifest.sections import Section


def described(section: type) -> dict[str, str]:
    """The text below each field of a section, by the field's name."""
    return _of_file(str(inspect.getsourcefile(section))).get(section.__name__, {})


@cache
def _of_file(path: str) -> dict[str, dict[str, str]]:
    """By class and field."""
    parsed = ast.parse(Path(path).read_text("utf-8"))
    return {one.name: _of_class(one) for one in parsed.body if isinstance(one, ast.ClassDef)}


def _of_class(section: ast.ClassDef) -> dict[str, str]:
    found = dict[str, str]()
    for field, text in pairwise(section.body):
        if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
            continue
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            found[field.target.id] = inspect.cleandoc(str(text.value.value))
    return found


def _sections(section: type[Section]) -> Iterator[type[Section]]:
    """A section, and those that its keys may hold."""
    yield section
    for field in section.model_fields.values():
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, Section):
                yield from _sections(kind)


def json_schema() -> dict[str, Any]:
    """The manifest's JSON Schema (draft 2020-12)."""
    schema = Manifest.model_json_schema()
    for section in _sections(Manifest):
        part = schema if section is Manifest else schema["$defs"][section.__name__]
        for name, text in described(section).items():
            part["properties"][section.model_fields[name].alias or name]["description"] = text
    for key in may_be_empty(Manifest):
        section = schema["properties"][key]
        kind = section_of(Manifest.model_fields[key])
        section["default"] = kind().model_dump(mode="json", by_alias=True) if kind else None
        section["anyOf"] = [{"$ref": section.pop("$ref")}, {"type": "null"}]
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "reembed manifest"
    return schema
