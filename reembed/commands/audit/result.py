"""What an audit found, and what came of mending it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from reembed.commands.audit.places import Place
from reembed.display.shown import Face, Shown, code, lines
from reembed.errors import GateError
from reembed.quality.proportion import Share
from reembed.run.steps import Step

Kind = Literal[
    "model", "foreign", "stale", "other_text", "edited", "format", "text", "drift", "zero",
    "not_finite", "missing", "lengths", "same_vector", "no_text", "refused", "mixed",
    "orphan", "ghost", "lost", "duplicate",
]  # fmt: skip
MENDED: tuple[Kind, ...] = (
    "foreign", "stale", "other_text", "edited", "format", "zero", "not_finite", "missing",
    "lengths",
)  # fmt: skip
"""Kinds of records that `--fix` embeds again."""
SHOWN = 10
"""Ids that a finding shows."""


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        kind: of it.
        message: one sentence.
        hint: what to do.
        bad: False for what is only worth knowing.
        records: that are known to be so, by their ids.
        share: in the random sample; None where every record was looked at.
        low, high: how many records of the whole collection are so.
        ids: some of them.
        places: where they are.
    """

    kind: Kind
    message: str
    hint: str = ""
    bad: bool = True
    records: int = 0
    share: Share | None = None
    low: int = 0
    high: int = 0
    ids: list[str] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind, "message": self.message, "hint": self.hint, "bad": self.bad,
            "records": self.records, "share": self.share.to_dict() if self.share else None,
            "low": self.low, "high": self.high, "ids": self.ids,
            "places": [place.to_dict() for place in self.places],
        }  # fmt: skip


def of_records(count: int, words: str) -> str:
    """A sentence about so many records.

    Args:
        words: begin with a verb as it is said of several.
    """
    if count != 1:
        return f"{count:,} records {words}"
    verb, _, rest = words.partition(" ")
    single = {"have": "has", "are": "is"}.get(verb, f"{verb}s")
    return f"1 record {single} {rest}"


@dataclass(frozen=True)
class Judged:
    """How records were judged.

    Attributes:
        by_model: the model was asked for their text.
        by_vectors: their vector alone puts them among the bad ones; of a part the model was asked.
        sample: of those the model was asked for, the random ones, which the shares rest on.
        screened: the model was not asked, and their vectors look like the good ones.
    """

    by_model: int = 0
    by_vectors: int = 0
    sample: int = 0
    screened: int = 0

    def to_dict(self) -> dict[str, int]:
        return dict(vars(self))


@dataclass(frozen=True)
class Cost:
    """Tokens, and US dollars at the listed price; None where it is unknown or free."""

    tokens: int = 0
    usd: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True, repr=False)
class Audit(Shown):
    """What `reembed audit` found.

    Attributes:
        collection: the name that the application reads.
        url: of the store, without secrets.
        model: that was asked; empty where there was none.
        model_from: who says that it made the vectors: given, manifest, store or detected.
        least: cosine from which a vector counts as the model's of a text.
        noise: largest 1 - cosine of the model with itself.
        median: cosine of the sample with what the model gives.
        mend: what it takes to embed those again that are named.
        named: id and kind of every record that is known to be bad.
        notes: what else is worth knowing.
        steps: what to type next.
    """

    collection: str
    url: str
    records: int
    dimensions: int | None
    model: str = ""
    model_from: str = ""
    least: float = 0.0
    noise: float = 0.0
    median: float | None = None
    judged: Judged = field(default_factory=Judged)
    findings: list[Finding] = field(default_factory=list)
    mend: Cost = field(default_factory=Cost)
    asked: Cost = field(default_factory=Cost)
    named: dict[str, Kind] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)

    def _face(self) -> Face:
        wrong = f"{len(self.bad)} findings" if self.bad else "nothing is wrong"
        asked = self.model or "without a model"
        return Face(
            f"{self.collection!r}: {self.records:,} records, {asked}, {wrong}",
            [
                ("wrong", lines(one.message for one in self.bad)),
                ("notes", lines(self.notes)),
                ("next", code(self.steps[0].command if self.steps else "")),
            ],
        )

    @property
    def bad(self) -> list[Finding]:
        """What is wrong."""
        return [one for one in self.findings if one.bad]

    @property
    def mendable(self) -> dict[str, Kind]:
        """The named records that `--fix` embeds again."""
        return {id: kind for id, kind in self.named.items() if kind in MENDED}

    @property
    def exit_code(self) -> int:
        """0 where all is right, else 4."""
        return GateError.exit_code if self.bad else 0

    def to_dict(self) -> dict[str, Any]:
        return {
            "collection": self.collection, "url": self.url, "records": self.records,
            "dimensions": self.dimensions, "ok": not self.bad, "model": self.model,
            "model_from": self.model_from, "least_cosine": round(self.least, 6),
            "noise": self.noise, "median_cosine": self.median, "judged": self.judged.to_dict(),
            "findings": [one.to_dict() for one in self.findings], "mend": self.mend.to_dict(),
            "asked": self.asked.to_dict(), "named": self.named, "notes": self.notes,
            "steps": [step.to_dict() for step in self.steps],
        }  # fmt: skip


@dataclass(frozen=True)
class Mended:
    """What came of `--fix` or `--undo`.

    Attributes:
        action: fix or undo.
        audit: what was found; None where an earlier call had found it, and for an undo.
        records: that were to be written.
        written: whose vectors are now what they were to be, as was looked up.
        left: ids with the reason why they were left as they are.
        backup: the snapshot that was taken before.
        path: where the way back is kept.
        removed: rows of metadata of no record that were deleted; they are kept there too.
        steps: what to type next.
    """

    action: str
    collection: str
    audit: Audit | None = None
    records: int = 0
    written: int = 0
    left: dict[str, str] = field(default_factory=dict)
    backup: str = ""
    path: str = ""
    removed: int = 0
    steps: list[Step] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """4 where something is left that is not right."""
        rest = self.audit is not None and any(
            one.kind not in (*MENDED, "orphan") or one.high > one.records for one in self.audit.bad
        )
        return GateError.exit_code if self.left or rest else 0

    def to_dict(self) -> dict[str, Any]:
        return {
            "action": self.action, "collection": self.collection, "records": self.records,
            "audit": self.audit.to_dict() if self.audit else None, "written": self.written,
            "left": self.left, "backup": self.backup, "path": self.path, "removed": self.removed,
            "steps": [step.to_dict() for step in self.steps],
        }  # fmt: skip
