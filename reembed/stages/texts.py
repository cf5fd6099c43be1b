"""What a plan says of texts that would be embedded: whose they are, what the template lacks."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

from reembed.manifest import Layout, Manifest
from reembed.manifest.layouts import Kind, kind_of, sends_blanks
from reembed.manifest.template import TextTemplate, look_up

FEW = 0.5
"""Share of the records below which a template's key is told."""
NAMES: dict[Kind, str] = {"llamaindex": "LlamaIndex", "mem0": "mem0", "open-webui": "open-webui"}
EMBEDDED: dict[Kind, str] = {
    "llamaindex": "its lines of metadata and then the text",
    "mem0": "the text that it keeps as `data`",
}
_LAYOUTS: tuple[Layout, ...] = ("llamaindex", "mem0")
LONGEST_SHOWN = 300
"""Characters of a text that a plan shows."""

Told = tuple[str, str]
"""A sentence, and the way on."""


@dataclass(frozen=True)
class TextFindings:
    """What was found in a sample.

    Attributes:
        example: the beginning of the first text that would be embedded; empty without one.
    """

    example: str = ""
    blockers: list[Told] = field(default_factory=list)
    warnings: list[Told] = field(default_factory=list)


def examine_texts(
    manifest: Manifest, texts: Sequence[str], documents: Sequence[str | None],
    metadatas: Sequence[str],
) -> TextFindings:  # fmt: skip
    """Look at a sample of records.

    Args:
        texts: what the template makes of them.
    """
    model = manifest.new_model
    assert model is not None, "without one no text is embedded"
    shown = next((text for text in texts if text.strip()), "")
    found = TextFindings(shown[:LONGEST_SHOWN])
    if not texts:
        return found
    kinds = Counter(map(kind_of, documents, metadatas))
    template = manifest.template()
    found.blockers.extend(_strangers(manifest, documents, metadatas))
    for key, count in _key_counts(template, metadatas).items():
        _tell_key(found, manifest.text, key, count, metadatas)
    for kind, name in NAMES.items():
        if not kinds[kind]:
            continue
        share = f"{kinds[kind] / len(texts):.0%} of the sampled records are {name}'s"
        if kind in EMBEDDED and manifest.source.layout in ("auto", kind):
            found.warnings.append((
                f"{share}: {{document}} is what {name} embeds of them, {EMBEDDED[kind]}",
                "source.layout: plain embeds the document alone.",
            ))  # fmt: skip
        broken = any("\n" in text for text in texts)
        if sends_blanks(kind, model.provider) and broken:
            found.warnings.append((
                f"{share}, and {_sender(kind)} sends line breaks as spaces: what it adds after "
                "the swap would be embedded differently from what was moved",
                "Set line_breaks: space, next to text.",
            ))  # fmt: skip
    return found


def _sender(kind: Kind) -> str:
    return {"llamaindex": "its OpenAIEmbedding", "mem0": "its embedder"}.get(kind, "it")


def _strangers(
    manifest: Manifest, documents: Sequence[str | None], metadatas: Sequence[str]
) -> list[Told]:
    """Refuse a layout that was named and that no record has."""
    layout = manifest.source.layout
    if layout not in _LAYOUTS:
        return []
    if layout == "mem0":
        ours = any(document or '"data"' in metadata
                   for document, metadata in zip(documents, metadatas, strict=True))  # fmt: skip
    else:
        ours = any(kind_of(None, metadata) == layout for metadata in metadatas)
    if ours:
        return []
    name = NAMES["mem0" if layout == "mem0" else "llamaindex"]
    return [(
        f"source.layout is {layout}, and none of the {len(metadatas):,} sampled records is "
        f"{name}'s",
        "Leave it out: each record is then read as what it is.",
    )]  # fmt: skip


def _key_counts(template: TextTemplate, metadatas: Sequence[str]) -> dict[str, int]:
    """How many records have each metadata key of the template."""
    parsed = [json.loads(metadata) for metadata in metadatas] if template.metadata_keys else []
    return {
        key: sum(look_up(metadata, key) is not None for metadata in parsed)
        for key in template.metadata_keys
    }


def _tell_key(
    found: TextFindings, text: str, key: str, count: int, metadatas: Sequence[str]
) -> None:
    share = count / len(metadatas)
    if share >= FEW:
        return
    if count:
        found.warnings.append((
            f"only {share:.1%} of the sampled records have the metadata key {key!r} of the "
            "template; the others are embedded without it",
            "Check its spelling, or leave it out of text.",
        ))  # fmt: skip
        return
    names = sorted(_names(metadatas))
    close = get_close_matches(key, names, 1)
    there = f"They have: {', '.join(names[:20])}." if names else "They have no metadata."
    found.blockers.append((
        f"none of the {len(metadatas):,} sampled records has the metadata key {key!r} of the "
        "template (text)",
        f"Did you mean {{metadata.{close[0]}}}? `text: '{text.replace(key, close[0])}'`"
        if close
        else there,
    ))  # fmt: skip


def _names(metadatas: Sequence[str]) -> set[str]:
    """Keys of the records' metadata, those of objects in it with a dot."""
    names: set[str] = set()
    for text in metadatas:
        metadata = json.loads(text)
        if isinstance(metadata, dict):
            names |= metadata.keys()
            names |= {f"{key}.{inner}" for key, value in metadata.items()
                      if isinstance(value, dict) for inner in value}  # fmt: skip
    return names
