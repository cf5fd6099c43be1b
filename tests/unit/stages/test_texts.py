"""What a plan says of a template's keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from reembed.manifest import Manifest
from reembed.stages.texts import TextFindings, examine_texts


def found(text: str, metadatas: list[str], **source: str) -> TextFindings:
    model = {"provider": "static", "name": "wordllama"}
    manifest = Manifest.parse(
        {"name": "m", "source": {"url": "chroma:./x", "collection": "docs"} | source,
         "model": model, "text": text}, Path.cwd(),
    )  # fmt: skip
    count = len(metadatas)
    documents: list[str | None] = [f"text {n}" for n in range(count)]
    columns = [str(n) for n in range(count)], documents, metadatas, [None] * count
    return examine_texts(manifest, manifest.template().texts(*columns), documents, metadatas)


@pytest.mark.parametrize(
    ("key", "hint"),
    [("titel", "Did you mean {metadata.title}?"),
     ("autor.name", "Did you mean {metadata.author.name}?"),
     ("zzz", "They have: author, author.name, title.")],
)  # fmt: skip
def test_a_key_that_no_record_has_stands_in_the_way(key: str, hint: str) -> None:
    metadatas = ['{"title": "a", "author": {"name": "b"}}', "null"]
    ((message, way),) = found(f"{{metadata.{key}}}: {{document}}", metadatas).blockers
    assert f"none of the 2 sampled records has the metadata key '{key}'" in message
    corrected = f" `text: '{hint[13:-1]}: {{document}}'`" if hint.startswith("Did") else ""
    assert way == hint + corrected
    right = hint.removeprefix("Did you mean ").removesuffix("?")
    if right != hint:
        assert not found(f"{right}: {{document}}", metadatas).blockers


def test_a_key_that_few_records_have_is_told_with_their_share() -> None:
    metadatas = ['{"title": "a"}', "null", "{}", '{"title": null}']
    ((message, _),) = found("{metadata.title}: {document}", metadatas).warnings
    assert message.startswith("only 25.0% of the sampled records have the metadata key 'title'")
    assert not found("{metadata.title}: {document}", metadatas[:2]).warnings


def test_one_text_is_shown() -> None:
    assert found("about {metadata.title}: {document}", ['{"title": "a"}']).example == (
        "about a: text 0"
    )
    assert found("{document}", []).example == ""
