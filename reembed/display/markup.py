"""HTML from values, with everything escaped that was not made here.

`h("td", record_id)` escapes its text; only what `h` returned goes in as it is. So an id, a document
or a model name cannot become markup, wherever it stands in the report.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import TypeAlias

UNSHOWABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
"""What HTML may not contain: control characters and halves of surrogate pairs."""
SHORT = 40
"""Characters of a text that is remembered once it is escaped."""
VOID = frozenset({"meta", "link", "br", "wbr"})


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


Child: TypeAlias = str | int | float | Iterable["Child"] | None


def escape(value: object) -> Markup:
    """`value` as text in HTML or in a double-quoted attribute."""
    text = str(value)
    return _escaped_word(text) if len(text) <= SHORT else _escaped(text)


def _escaped(text: str) -> Markup:
    return Markup(html.escape(UNSHOWABLE.sub("\ufffd", text)))


_escaped_word = lru_cache(maxsize=2048)(_escaped)
"""A report says the same few hundred names, classes and numbers again and again."""


def h(tag: str, *children: Child, **attributes: object) -> Markup:
    """An element. `class_` is `class`, `aria_label` is `aria-label`; None and False are left out.

    Example: `h("a", "gates", href="#gates")` is `<a href="#gates">gates</a>`.
    """
    opened = f"<{tag}>"
    if attributes:
        opened = f"<{tag}{''.join([_attribute(*item) for item in attributes.items()])}>"
    if tag in VOID:
        return Markup(opened)
    return Markup(f"{opened}{''.join([_render(child) for child in children])}</{tag}>")


def join(children: Iterable[Child]) -> Markup:
    """Elements and texts one after the other."""
    return Markup("".join([_render(child) for child in children]))


def _render(child: Child) -> str:
    if isinstance(child, Markup):
        return child
    if child is None:
        return ""
    if isinstance(child, str | int | float):
        return escape(child)
    return join(child)


def _attribute(name: str, value: object) -> str:
    if value is None or value is False:
        return ""
    name = _attribute_name(name)
    return f" {name}" if value is True else f' {name}="{escape(value)}"'


@lru_cache(maxsize=256)
def _attribute_name(name: str) -> str:
    name = name.rstrip("_")
    return name if name == "viewBox" else name.replace("_", "-")
