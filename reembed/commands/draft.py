"""A manifest as commented YAML: what is decided as keys, every other option as a comment.

An option is one line, `# key: default  # what it is`, and stands where the key belongs, so that a
manifest with its mark taken away says the same as before.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from pydantic.fields import FieldInfo

from reembed.manifest import Manifest, Model
from reembed.manifest.manifest import section_of
from reembed.manifest.schema import described
from reembed.manifest.sections import Section

_INDENT = "  "


def draft_yaml(manifest: Mapping[str, Any]) -> str:
    """The manifest as YAML, with a comment for every option that it does not set.

    Args:
        manifest: keys as in a file; `source` and `model` are sections.
    """
    return "\n".join([*_plain(manifest), *_sections(manifest)]) + "\n"


def _plain(manifest: Mapping[str, Any]) -> Iterator[str]:
    fields = {key: field for key, field in _fields(Manifest) if _section(key, field) is None}
    yield from _options(Manifest, fields, manifest)


def _sections(manifest: Mapping[str, Any]) -> Iterator[str]:
    for key, field in _fields(Manifest):
        section = _section(key, field)
        if section is not None:
            yield from ("", f"# {' '.join((section.__doc__ or '').split())}", f"{key}:")
            lines = _options(section, dict(_fields(section)), manifest.get(key) or {})
            yield from (textwrap.indent(line, _INDENT) for line in lines)


def _section(key: str, field: FieldInfo) -> type[Section] | None:
    return Model if key == "model" else section_of(field)


def _options(
    section: type[Section], fields: Mapping[str, FieldInfo], given: Mapping[str, Any]
) -> Iterator[str]:
    """The keys that are given, then the others as comments."""
    texts = {section.model_fields[name].alias or name: text
             for name, text in described(section).items()}  # fmt: skip
    for key in fields:
        if key in given:
            yield _written(key, given[key])
    for key, field in fields.items():
        if key not in given:
            about = " ".join(texts.get(key, "").split())
            default = field.get_default(call_default_factory=True)
            yield f"# {_written(key, default)}  # {about}"


def _fields(section: type[Section]) -> Iterator[tuple[str, FieldInfo]]:
    """Keys as a file has them."""
    for name, field in section.model_fields.items():
        yield field.alias or name, field


def _written(key: str, value: Any) -> str:
    text: str = yaml.safe_dump({key: value}, sort_keys=False, allow_unicode=True, width=1_000_000)
    return text.rstrip("\n")
