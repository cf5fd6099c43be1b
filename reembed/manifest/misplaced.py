"""Keys of a manifest that are right by themselves, and say nothing beside others that it has."""

from __future__ import annotations

from typing import Literal, Protocol

from reembed.errors import ManifestError
from reembed.manifest.sections import Embed, LineBreaks, Source, Swap, Target, Verify


class Keys(Protocol):
    """What is looked at of a manifest."""

    @property
    def is_group(self) -> bool: ...
    @property
    def mode(self) -> Literal["once", "follow"]: ...
    @property
    def keeps(self) -> bool: ...
    @property
    def source(self) -> Source: ...
    @property
    def target(self) -> Target: ...
    @property
    def swap(self) -> Swap: ...
    @property
    def verify(self) -> Verify: ...
    @property
    def embed(self) -> Embed: ...
    @property
    def text(self) -> str: ...
    @property
    def line_breaks(self) -> LineBreaks: ...


def refuse_for_several(manifest: Keys, origin: str) -> None:
    """Raise ManifestError for a key that says something of one collection, where several move."""
    if not manifest.is_group:
        return
    if manifest.mode == "follow":
        raise ManifestError(
            f"{origin}: mode: follow is for one collection, and source.collections moves several",
            "Give each collection a manifest of its own (source.collection).",
        )
    for key, value in (
        ("target.collection", manifest.target.collection),
        ("swap.live", manifest.swap.live),
        ("verify.qrels", manifest.verify.qrels),
        ("source.mem0", manifest.source.mem0),
    ):
        if value is not None:
            raise ManifestError(
                f"{origin}: {key} is for one collection, and source.collections moves several",
                "Leave it out, or give that collection a manifest of its own (source.collection).",
            )


def refuse_for_kept(manifest: Keys, origin: str) -> None:
    """Raise ManifestError for a key that says how texts are embedded, where none is."""
    if not manifest.keeps:
        return
    for key, given in (
        ("mode: follow", manifest.mode == "follow"),
        ("text", manifest.text != "{document}"),
        ("line_breaks", manifest.line_breaks != "keep"),
        ("embed", manifest.embed != Embed()),
        ("verify.queries", manifest.verify.queries is not None),
        ("verify.qrels", manifest.verify.qrels is not None),
        ("source.mem0", manifest.source.mem0 is not None),
    ):
        if given:
            raise ManifestError(
                f"{origin}: {key} is for what a model embeds, and model: keep embeds nothing",
                "Leave it out: the vectors are moved as they are, and the gates search by stored "
                "ones.",
            )


def refuse_for_followed(manifest: Keys, origin: str) -> None:
    """Raise ManifestError for a key of an application's own files, where a corpus is followed into
    a collection beside it."""
    if manifest.mode == "follow" and manifest.source.mem0 is not None:
        raise ManifestError(
            f"{origin}: source.mem0 is for moving mem0's own collection, and mode: follow carries "
            "a corpus into another one, of which mem0 knows nothing",
            "Leave source.mem0 out; or leave mode out, and `reembed run --swap` moves mem0.",
        )
