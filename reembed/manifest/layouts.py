"""The text that a framework embeds of a record, which is not always its document.

LlamaIndex embeds lines of metadata and then the text, and says how in `_node_content`; mem0 keeps a
memory's text in its metadata. Each record tells by itself whose it is, so a collection that two
applications fill is read as each of them does. Everything else embeds the document alone.
"""

from __future__ import annotations

import hashlib
import json
import string
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Literal

from reembed.manifest.sections import Layout

NODE = "_node_content"
"""LlamaIndex's key for a node as JSON, without its text."""
_OPEN_WEBUI = "embedding_config"
_MEMORY = '"data"'
_OF_A_GRAPH = "vector_source_id"
_MESSAGE = "<message role='"
MAKES_TEXT: frozenset[Layout] = frozenset({"auto", "llamaindex", "mem0"})
"""Layouts under which a record's text may be another one than its document."""

Kind = Literal["plain", "llamaindex", "mem0", "open-webui"]


class LayoutError(ValueError):
    """A node's template holds what a plain one does not, so its text cannot be rebuilt."""


def text_of(layout: Layout, document: str | None, metadata: str) -> str | None:
    """What the application embeds of a record.

    Args:
        layout: `source.layout`; auto: as the record itself tells.
        metadata: the store's JSON text.

    Returns:
        the text; the document as it is where the record is none of the layout's; nothing where it
        cannot be rebuilt.
    """
    if layout in ("auto", "llamaindex") and NODE in metadata:
        node = _node(json.loads(metadata))
        if node is not None:
            try:
                return _node_text(node, document or "")
            except LayoutError:
                return None
    if layout == "mem0" and not document:
        data = _object(metadata).get("data")
        return data if isinstance(data, str) else document
    if layout == "auto" and not document and _MEMORY in metadata:
        return _memory(_object(metadata)) or document
    return document


def kind_of(document: str | None, metadata: str) -> Kind:
    """Whose record it is, by what it holds alone."""
    found = _object(metadata)
    if NODE in metadata and _node(found) is not None:
        return "llamaindex"
    if not document and _memory(found) is not None:
        return "mem0"
    if document and "engine" in str(found.get(_OPEN_WEBUI, "")):
        return "open-webui"
    return "plain"


def sends_blanks(kind: Kind, provider: str) -> bool:
    """Whether an application's own embedder of a provider sends line breaks as blanks: open-webui
    does whatever the model, mem0's and LlamaIndex's where they speak OpenAI's API."""
    return kind == "open-webui" or (kind != "plain" and provider == "openai")


def _object(metadata: str) -> dict[str, Any]:
    found = json.loads(metadata)
    return found if isinstance(found, dict) else {}


def _memory(metadata: Mapping[str, Any]) -> str | None:
    """The text of a memory of mem0's, which keeps its MD5 beside it, or of one of its entities."""
    data = metadata.get("data")
    if not isinstance(data, str):
        return None
    digest = hashlib.md5(data.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()
    ours = metadata.get("hash") == digest or "linked_memory_ids" in metadata
    return data if ours else None


def _node(metadata: Any) -> dict[str, Any] | None:
    """The node in a record's metadata, or in a column of it; None where there is none."""
    if not isinstance(metadata, dict):
        return None
    for holder in (metadata, *metadata.values()):
        content = holder.get(NODE) if isinstance(holder, dict) else None
        if isinstance(content, str):
            try:
                node = json.loads(content)
            except ValueError:
                return None
            return (
                node if isinstance(node, dict) and "excluded_embed_metadata_keys" in node else None
            )
    return None


def _node_text(node: Mapping[str, Any], text: str) -> str:
    """As `BaseNode.get_content(MetadataMode.EMBED)` of llama-index-core gives it."""
    metadata = node.get("metadata") or {}
    if _embedded_alone(metadata, text):
        return text
    excluded = set(node.get("excluded_embed_metadata_keys") or ())
    separator = node.get("metadata_separator", node.get("metadata_seperator", "\n"))
    template = node.get("metadata_template", "{key}: {value}")
    lines = [
        filled(template, {"key": key, "value": str(value)})
        for key, value in metadata.items() if key not in excluded
    ]  # fmt: skip
    told = separator.join(lines)
    if _is_of_node(node):
        if not text:
            return ""
    else:
        told = told.strip()
    if not told:
        return text
    whole = node.get("text_template", "{metadata_str}\n\n{content}")
    return filled(whole, {"content": text, "metadata_str": told}).strip()


def _embedded_alone(metadata: Mapping[str, Any], text: str) -> bool:
    """Whether a node was given its vector before its metadata: LlamaIndex's `PropertyGraphIndex`
    and `VectorMemoryBlock` embed what they store as text alone."""
    return _OF_A_GRAPH in metadata or (
        list(metadata) == ["session_id"] and text.startswith(_MESSAGE)
    )


def _is_of_node(node: Mapping[str, Any]) -> bool:
    """Whether its class is `Node` or one derived from it (`Document`, an application's own), and
    not `TextNode`, which puts its text together in another way: it has another field for it."""
    return "audio_resource" in node or node.get("class_name") in ("Node", "Document")


def filled(template: str, values: Mapping[str, str]) -> str:
    """`template.format(**values)` for templates that put values in as they are. What more a format
    string can do (look into a value, pad it) is data's to ask for, so it is not done.

    Raises:
        LayoutError: it does more, or names something else.
    """
    parts = []
    for literal, name in _parsed(template):
        if name is not None and name not in values:
            raise LayoutError(f"{{{name}}} is none of {', '.join(values)}")
        parts += [literal, "" if name is None else values[name]]
    return "".join(parts)


@lru_cache(64)
def _parsed(template: str) -> tuple[tuple[str, str | None], ...]:
    return tuple(_parse(template))


def _parse(template: str) -> Iterator[tuple[str, str | None]]:
    try:
        for literal, name, spec, conversion in string.Formatter().parse(template):
            if spec or conversion not in (None, "s"):
                raise LayoutError(f"{{{name}}} is formatted")
            yield literal, name
    except (ValueError, TypeError) as error:
        raise LayoutError(str(error)) from None
