"""Whose a record is, and what is embedded of it. What LlamaIndex and mem0 themselves make of it is
held in tests/stories/test_chroma_frameworks.py."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from reembed.manifest.layouts import LayoutError, filled, kind_of, text_of
from reembed.manifest.template import TextTemplate


def node(metadata: dict[str, Any], **settings: Any) -> str:
    content = {"metadata": metadata, "excluded_embed_metadata_keys": []} | settings
    return json.dumps(metadata | {"_node_content": json.dumps(content)})


def memory(text: str, **more: Any) -> str:
    return json.dumps({"data": text, "hash": hashlib.md5(text.encode()).hexdigest()} | more)


def test_a_node_is_its_metadata_and_its_text_on_every_store() -> None:
    metadata = node({"file": "a.md"})
    assert text_of("auto", "text", metadata) == "file: a.md\n\ntext"
    column = json.dumps({"metadata_": json.loads(metadata), "node_id": "1"})
    assert text_of("llamaindex", "text", column) == "file: a.md\n\ntext"
    assert kind_of("text", column) == "llamaindex"
    assert text_of("plain", "text", metadata) == text_of("langchain", "text", metadata) == "text"
    old_name = node({"a": 1, "b": 2}, metadata_seperator="; ")
    assert text_of("auto", "text", old_name) == "a: 1; b: 2\n\ntext"


def test_what_llamaindex_embeds_before_it_adds_metadata_is_the_text_alone() -> None:
    entity = node({"vector_source_id": "Ada", "age": 36})
    assert text_of("auto", "Ada (age: 36)", entity) == "Ada (age: 36)"
    said = "<message role='user'>tea, please</message>"
    assert text_of("auto", said, node({"session_id": "7"})) == said
    assert text_of("auto", "notes", node({"session_id": "7"})) == "session_id: 7\n\nnotes"
    more = node({"session_id": "7", "by": "me"})
    assert text_of("auto", said, more) == f"session_id: 7\nby: me\n\n{said}"


def test_a_class_of_its_own_is_told_by_its_fields() -> None:
    """`ImageDocument` and an application's own `Document` keep blanks around their metadata."""
    page = {"audio_resource": None, "class_name": "ImageDocument"}
    looks = {"metadata_template": "{key} ", "text_template": "[{metadata_str}] {content}"}
    assert text_of("auto", "text", node({"a": 1}, **page, **looks)) == "[a ] text"
    assert text_of("auto", "text", node({"a": 1}, **looks)) == "[a] text"
    assert text_of("auto", "", node({"a": 1}, **page)) == ""
    assert text_of("auto", "", node({"a": 1}, class_name="ImageNode")) == "a: 1"


@pytest.mark.parametrize(
    "content", ["no JSON", "[]", "{}", json.dumps({"metadata": {"a": 1}}), json.dumps("x")]
)
def test_what_is_no_node_is_its_document(content: str) -> None:
    metadata = json.dumps({"_node_content": content})
    assert text_of("auto", "text", metadata) == "text"
    assert kind_of("text", metadata) == "plain"
    assert text_of("auto", "about _node_content", "null") == "about _node_content"


@pytest.mark.parametrize(
    "template",
    ["{value.__class__}", "{value[0]}", "{value!r}", "{value:>1000000000}", "{}", "{other}", "{"],
)
def test_a_template_that_does_more_than_put_values_in_gives_no_text(template: str) -> None:
    with pytest.raises(LayoutError):
        filled(template, {"key": "k", "value": "v"})
    assert text_of("auto", "text", node({"a": 1}, metadata_template=template)) is None


def test_braces_are_as_format_has_them() -> None:
    assert filled("{{a}} {key!s}={value}", {"key": "k", "value": "{v}"}) == "{a} k={v}"


def test_a_memory_is_told_by_its_hash() -> None:
    assert text_of("auto", None, memory("tea")) == "tea"
    assert kind_of(None, memory("tea")) == "mem0"
    other = json.dumps({"data": "somebody else's", "hash": "1"})
    assert text_of("auto", None, other) is None
    assert text_of("mem0", None, other) == "somebody else's"
    assert text_of("auto", "a document", memory("tea")) == "a document"
    entity = json.dumps({"data": "Ada", "linked_memory_ids": ["1"]})
    assert text_of("auto", None, entity) == "Ada"


def test_line_breaks_are_blanks_where_they_are_to_be() -> None:
    columns = ["a"], ["one\ntwo\n"], ["null"], [None]
    assert TextTemplate("{document}", line_breaks="space").texts(*columns) == ["one two "]
    assert TextTemplate("{document}").texts(*columns) == ["one\ntwo\n"]
