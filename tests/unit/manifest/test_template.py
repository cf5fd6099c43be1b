"""The text template: fields, braces, blanks, and what it refuses."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reembed.manifest.template import TemplateError, TextTemplate


def render(
    template: str,
    *,
    id: str = "a",
    document: str | None = "text",
    metadata: object = None,
    uri: str | None = None,
) -> str:
    return TextTemplate(template).render(id, document, metadata, uri)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{document}", "text"),
        ("{id}: {document}", "a: text"),
        ("{uri} {document}", "file:///x text"),
        ("{metadata.title}\n{document}", "Hello\ntext"),
        ("{metadata.year}, {metadata.ok}", "1999, true"),
        ("{metadata.price}", "1.0"),
        ("{metadata.tags}", "x, y"),
        ("{metadata.absent}{document}", "text"),
        ("{{{document}}}", "{text}"),
        ("{{document}} {document}", "{document} text"),
        ("{metadata.a.b}", "dotted"),
        ("{metadata.with space}", "spaced"),
        ("{metadata.title|\n}{document}", "Hello\ntext"),
        ("{metadata.absent|\n}{metadata.year| / }{document}", "1999 / text"),
        ("{metadata.a.b|}{metadata.empty|: }{document}", "dotted: text"),
        ("{metadata.ok|, }{metadata.price|, }{metadata.tags|}", "True, 1.0, ['x', 'y']"),
    ],
)
def test_renders(template: str, expected: str) -> None:
    metadata = {
        "empty": "",
        "title": "Hello",
        "year": 1999,
        "ok": True,
        "price": 1.0,
        "tags": ["x", "y"],
        "a.b": "dotted",
        "with space": "spaced",
    }
    assert render(template, metadata=metadata, uri="file:///x") == expected


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("author.name", "Ada"),
        ("author.born.year", "1815"),
        ("author", '{"name": "Ada", "born": {"year": 1815}, "x.y": "z"}'),
        ("author.x.y", "z"),
        ("a.b", "as it stands"),
        ("a.c", "a step"),
        ("a.b.c", "dots in both"),
        ("a.absent", ""),
        ("absent.name", ""),
        ("tags.0", ""),
        ("a.b.c.d", ""),
        ("author.", ""),
        (".name", ""),
    ],
)
def test_a_key_with_dots_is_looked_up_as_it_stands_and_then_step_by_step(
    key: str, expected: str
) -> None:
    metadata = {
        "author": {"name": "Ada", "born": {"year": 1815}, "x.y": "z"},
        "a.b": "as it stands",
        "a": {"b": "behind it", "c": "a step", "b.c": "dots in both"},
        "tags": ["x"],
    }
    assert render(f"<{{metadata.{key}}}>{{id}}", metadata=metadata) == f"<{expected}>a"


@pytest.mark.parametrize("metadata", [None, [], ["title"], "title", 1.5, True])
def test_metadata_that_is_no_object_has_no_keys(metadata: object) -> None:
    assert render("{metadata.title}|{document}", metadata=metadata) == "|text"


@pytest.mark.parametrize(
    "template", ["{document.__class__}", "{0}", "{}", "{metadata}", "{metadata.}", "{metadata.|: }"]
)
def test_refuses_unknown_fields_and_names_the_known(template: str) -> None:
    with pytest.raises(TemplateError, match=r"unknown field.*\{document\}"):
        TextTemplate(template)


@pytest.mark.parametrize("template", ["{document", "document}", "{document}}", "{{document}"])
def test_refuses_unbalanced_braces_and_says_how_to_write_one(template: str) -> None:
    with pytest.raises(TemplateError, match=r"unbalanced '[{}]' at \d+; write '(\{\{|\}\})'"):
        TextTemplate(template)


@pytest.mark.parametrize("template", ["", "the same for all", "{{document}}"])
def test_refuses_a_template_without_a_field(template: str) -> None:
    with pytest.raises(TemplateError, match="uses no field"):
        TextTemplate(template)


@pytest.mark.parametrize("document", [None, "", " \n\t"])
def test_fixed_words_never_stand_for_a_record_without_text(document: str | None) -> None:
    assert render("title: {metadata.title}\n{document}", document=document) == ""
    assert (
        render("title: {metadata.title}", document=document, metadata={"title": "x"}) == "title: x"
    )


def test_values_are_not_evaluated_again() -> None:
    assert render("{document}", document="{metadata.secret} {{x}}") == "{metadata.secret} {{x}}"


def test_texts_of_many_records() -> None:
    template = TextTemplate("{metadata.title}|{document}")
    texts = template.texts(
        ["a", "b", "c"],
        ["one", None, "three"],
        [json.dumps({"title": "T"}), json.dumps({"title": "U"}), "null"],
        [None, None, None],
    )
    assert texts == ["T|one", "U|", "|three"]


def test_texts_do_not_parse_metadata_that_is_not_asked_for() -> None:
    template = TextTemplate("{document}")
    assert template.texts(["a"], ["one"], ["not JSON"], [None]) == ["one"]


def test_texts_of_columns_of_unequal_length_are_refused() -> None:
    for template in ("{document}", "{id} {document}"):
        with pytest.raises(ValueError, match=r"zip|unequal length"):
            TextTemplate(template).texts(["a", "b"], ["one"], ["null"], [None])


@given(st.text())
def test_document_comes_through_unchanged(document: str) -> None:
    assert render("{document}", document=document) == (document if document.strip() else "")


@given(st.text(alphabet=st.sampled_from("{}ab"), max_size=12))
def test_any_template_renders_or_is_refused(template: str) -> None:
    try:
        parsed = TextTemplate(template)
    except TemplateError:
        return
    parsed.render("a", "b", None, None)
