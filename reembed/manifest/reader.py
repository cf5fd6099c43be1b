"""Reading one YAML file that others may have written: bounded, safe, JSON's values alone."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import yaml

from reembed.errors import ManifestError
from reembed.manifest.secrets import starred
from reembed.records import unicode_fault

MAX_BYTES = 1 << 20
_MISFITS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What PyYAML raises for `!!timestamp x`, `!!int ""` and a date like 2026-13-45."""
MAX_DEPTH = 64
MAX_WHOLE = 2**63
"""JSON readers and stores agree on no number beyond it."""
MAX_NODES = 50_000
"""What a manifest may hold after its aliases are expanded; a real one has about 100 nodes."""


def read_yaml(path: Path) -> Any:
    """Parse one YAML document into mappings, lists, texts, numbers, booleans and nulls.

    Raises:
        ManifestError: it cannot be read, is no YAML, expands beyond MAX_NODES, repeats a key, or
            holds something else, such as a date.
    """
    text = _read(path)
    try:
        node = yaml.compose(text, yaml.SafeLoader)
        _bound(node, path)
        data = yaml.load(text, _UniqueKeyLoader)  # noqa: S506  (a SafeLoader)
    except yaml.MarkedYAMLError as error:
        # Not the error's own text: it shows the line, which may hold a secret.
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise _not_yaml(path, f"{where}{error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise _not_yaml(path, str(error)) from None
    except _MISFITS:  # within a mapping or a list of a type, such as `!!set [1]`
        raise _not_yaml(path, "a value does not fit its type") from None
    except RecursionError:
        raise ManifestError(f"{path}: is nested too deeply to be a manifest") from None
    _only_json(data, str(path))
    return data


def places(path: Path) -> dict[tuple[str, ...], tuple[int, int]]:
    """Line and column, both from 1, of every key and list item of a file that `read_yaml` took."""
    found: dict[tuple[str, ...], tuple[int, int]] = {}

    def walk(node: yaml.Node, path: tuple[str, ...]) -> None:
        if isinstance(node, yaml.MappingNode):
            inside = [(str(key.value), key, value) for key, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            inside = [(str(index), value, value) for index, value in enumerate(node.value)]
        else:
            return
        for name, at, value in inside:
            found[(*path, name)] = (at.start_mark.line + 1, at.start_mark.column + 1)
            walk(value, (*path, name))

    node = yaml.compose(_read(path), yaml.SafeLoader)
    if node is not None:
        walk(node, ())
    return found


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ManifestError(f"{path}: larger than {MAX_BYTES:,} bytes, so it is not a manifest")
        return data.decode("utf-8-sig")
    except FileNotFoundError:
        raise ManifestError(
            f"{path}: there is no such file", "Write one with `reembed init URL -o FILE`."
        ) from None
    except OSError as error:
        raise ManifestError(
            f"{path}: cannot be read: {error.strerror}",
            "Name the manifest's file, and give this user the right to read it.",
        ) from None
    except UnicodeDecodeError as error:
        raise ManifestError(
            f"{path}: is not UTF-8: byte {error.start} cannot be read",
            "If it is the manifest, let an editor save it as UTF-8; else name the right file.",
        ) from None


def _not_yaml(path: Path, why: str) -> ManifestError:
    message = f"{path}: is not valid YAML: {starred(why)}"
    if why.endswith(" is given twice"):
        return ManifestError(message, "Leave one of the two out.")
    return ManifestError(
        message,
        "Texts with a colon, a # or a brace in them need quotes; indent with spaces.",
    )


class _UniqueKeyLoader(yaml.SafeLoader):
    """A safe loader that refuses a key given twice instead of taking the last one in silence."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except _MISFITS:
            tag = node.tag.replace("tag:yaml.org,2002:", "!!")
            raise yaml.constructor.ConstructorError(
                None, None, f"the value does not fit its type {tag[:40]}", node.start_mark
            ) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be a text", key_node.start_mark
                )
            if key_node.value in seen and key_node.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key_node.value!r} is given twice", key_node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def _bound(node: yaml.Node | None, path: Path) -> None:
    """Refuse YAML whose aliases expand to more than MAX_NODES nodes, or to themselves, and what is
    nested deeper than MAX_DEPTH."""
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()
    deep = ManifestError(f"{path}: is nested too deeply to be a manifest")

    def size(node: yaml.Node) -> int:
        key = id(node)
        if key in sizes:
            return sizes[key]
        if key in open_nodes:
            raise ManifestError(
                f"{path}: an alias contains itself",
                "A manifest needs no aliases; write the values out.",
            )
        open_nodes.add(key)
        if len(open_nodes) > MAX_DEPTH:
            raise deep
        total = 1
        if isinstance(node, yaml.MappingNode):
            total += sum(size(k) + size(v) for k, v in node.value)
        elif isinstance(node, yaml.SequenceNode):
            total += sum(size(child) for child in node.value)
        open_nodes.discard(key)
        sizes[key] = total
        return total

    if node is not None and size(node) > MAX_NODES:
        raise ManifestError(
            f"{path}: its aliases expand to more than {MAX_NODES:,} values",
            "A manifest needs no aliases; write the values out.",
        )


def _only_json(data: Any, origin: str, path: tuple[str, ...] = ()) -> None:
    """Refuse what YAML has and JSON has not: the run directory and the `--json` output are JSON."""
    where = starred(".".join(path)) or "top level"
    if isinstance(data, dict):
        for key, value in data.items():
            if not isinstance(key, str):
                raise ManifestError(f"{origin}: {where}: the key {key!r} is not a text", _QUOTE)
            _only_json(value, origin, (*path, key))
    elif isinstance(data, list):
        for index, value in enumerate(data):
            _only_json(value, origin, (*path, str(index)))
    elif isinstance(data, str):
        if "\0" in data or unicode_fault(data):
            raise ManifestError(f"{origin}: {where} holds a character that no text may have")
    elif isinstance(data, int) and abs(data) > MAX_WHOLE:
        raise ManifestError(f"{origin}: {where} is a larger number than any setting takes")
    elif isinstance(data, float) and not math.isfinite(data):
        raise ManifestError(f"{origin}: {where} is not a finite number")
    elif not isinstance(data, int | float | None):
        raise ManifestError(
            f"{origin}: {where} is a {type(data).__name__}, which a manifest cannot hold", _QUOTE
        )


_QUOTE = "Put it in quotes if a text is meant."
