"""The text template: which text of a record is embedded.

`{document}`, `{id}`, `{uri}` and `{metadata.KEY}` are replaced; `{{` and `}}` are literal braces.
KEY may lead into objects: `{metadata.author.name}`, unless there is a key `author.name`. What a
record lacks is replaced by nothing; `{metadata.title|: }` is the title and then `: `, and nothing
at all of a record without one. This is no format string: nothing else is evaluated.

`{document}` is what the application embeds of a record, which some frameworks build of more than
the document (`layouts`).
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from reembed.manifest.layouts import MAKES_TEXT, text_of
from reembed.manifest.sections import Layout, LineBreaks

if TYPE_CHECKING:
    import pyarrow as pa

TEXT_COLUMNS = ("id", "document", "metadata", "uri")
"""Of records: what a text is made of."""

_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


class TemplateError(ValueError):
    """The template has an unknown field or an unbalanced brace."""


class TextTemplate:
    """A parsed template, which gives records' texts.

    Args:
        layout: what `{document}` stands for.
        line_breaks: space: each is sent as a blank.
    """

    def __init__(
        self, template: str, layout: Layout = "plain", line_breaks: LineBreaks = "keep"
    ) -> None:
        self.template = template
        self.layout = layout
        self.line_breaks = line_breaks
        self.metadata_keys: list[str] = []
        self._parts: list[str | Callable[[str, str | None, Any, str | None], str]] = []
        end = 0
        for match in _TOKEN.finditer(template):
            self._parts.append(template[end : match.start()])
            end = match.end()
            token = match.group()
            if token in ("{{", "}}"):
                self._parts.append(token[0])
            elif match.group(1) is None:
                raise TemplateError(f"unbalanced {token!r} at {match.start()}; write {token * 2!r}")
            else:
                self._parts.append(self._field(match.group(1)))
        self._parts.append(template[end:])
        if all(isinstance(part, str) for part in self._parts):
            raise TemplateError("uses no field of the record, so all texts would be equal")

    def _field(self, name: str) -> Callable[[str, str | None, Any, str | None], str]:
        if name == "document":
            return lambda id, document, metadata, uri: document or ""
        if name == "id":
            return lambda id, document, metadata, uri: id
        if name == "uri":
            return lambda id, document, metadata, uri: uri or ""
        whole = name.removeprefix("metadata.")
        key, bar, joint = whole.partition("|")
        if whole == name or not key:
            close = difflib.get_close_matches(name, ("document", "id", "uri", "metadata.KEY"), 1)
            meant = f"; did you mean '{{{close[0]}}}'?" if close else ""
            raise TemplateError(
                f"unknown field {{{name}}}; known: {{document}}, {{id}}, {{uri}}, {{metadata.KEY}}"
                f"{meant}"
            )
        self.metadata_keys.append(key)
        if not bar:
            return lambda id, document, metadata, uri: _plain(look_up(metadata, key))

        def joined(id: str, document: str | None, metadata: Any, uri: str | None) -> str:
            value = look_up(metadata, key)  # `str` of it, as Haystack's embedders say it
            return "" if value is None else f"{value}{joint}"

        return joined

    def render(self, id: str, document: str | None, metadata: Any, uri: str | None) -> str:
        """The text of one record; `document` is what its layout makes of it, and `metadata` its
        parsed JSON, of which only an object has keys.

        Nothing at all where every field used is blank, so that a template's fixed words never
        stand for a record without text.
        """
        blank = True
        text = []
        for part in self._parts:
            if isinstance(part, str):
                text.append(part)
            else:
                value = part(id, document, metadata, uri)
                blank = blank and not value.strip()
                text.append(value)
        whole = "" if blank else "".join(text)
        return whole.replace("\n", " ") if self.line_breaks == "space" else whole

    def texts_of(self, records: pa.RecordBatch | pa.Table) -> list[str]:
        """The texts of records."""
        return self.texts(*(records.column(name).to_pylist() for name in TEXT_COLUMNS))

    def texts(
        self,
        ids: Sequence[str],
        documents: Sequence[str | None],
        metadatas: Sequence[str],
        uris: Sequence[str | None],
    ) -> list[str]:
        """The texts of many records; `metadatas` is JSON text, parsed only if it must be.

        Raises:
            ValueError: the columns are not of one length.
        """
        parse = json.loads if self.metadata_keys else _no_metadata
        if self.layout in MAKES_TEXT:
            documents = [
                text_of(self.layout, document, metadata)
                for document, metadata in zip(documents, metadatas, strict=True)
            ]
        if self.template == "{document}" and self.line_breaks == "keep":
            if not len(ids) == len(documents) == len(metadatas) == len(uris):
                raise ValueError("columns of unequal length")
            return [text if text and not text.isspace() else "" for text in documents]
        return [
            self.render(id, document, parse(metadata), uri)
            for id, document, metadata, uri in zip(ids, documents, metadatas, uris, strict=True)
        ]


def _no_metadata(text: str) -> None:
    return None


def look_up(metadata: Any, key: str) -> Any:
    """The value of a key, None without one. A key with dots that is not there as it stands is
    looked up step by step: `a.b` is then `b` in the object `a`."""
    if not isinstance(metadata, dict):
        return None
    if key in metadata:
        return metadata[key]
    dots = (place for place, letter in enumerate(key) if letter == ".")
    steps = (look_up(metadata.get(key[:dot]), key[dot + 1 :]) for dot in dots)
    return next((found for found in steps if found is not None), None)


def _plain(value: Any) -> str:
    """A metadata value as text: strings as they are, lists joined by commas, absent as nothing."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return ", ".join(_plain(item) for item in value)
    return json.dumps(value, ensure_ascii=False)
