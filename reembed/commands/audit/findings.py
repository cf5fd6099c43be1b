"""What was found, in plain words."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from reembed.commands.audit.formats import Format
from reembed.commands.audit.held import Held, Rows
from reembed.commands.audit.judge import REFUSED
from reembed.commands.audit.kinds import Named
from reembed.commands.audit.mixture import Mixture
from reembed.commands.audit.places import places
from reembed.commands.audit.result import SHOWN, Audit, Finding, Kind, of_records
from reembed.commands.audit.search import Search
from reembed.manifest import Model
from reembed.quality.proportion import Share, share

WORDS: dict[Kind, str] = {
    "foreign": "have a vector that another model made",
    "stale": "have a vector of this model, and of another text: the text was changed, and the "
    "vector was not",
    "other_text": "have the vector of another record's text",
    "edited": "have a vector that is nearly that of their text: one of the two was changed",
    "format": "have a vector of their text in another form",
}
FIX = "`--fix` embeds them again, and no others."


@dataclass
class Told:
    """What was found so far.

    Attributes:
        rows: of each kind that is known by its ids.
    """

    held: Held
    findings: list[Finding] = field(default_factory=list)
    rows: dict[Kind, Rows] = field(default_factory=dict)

    def add(self, finding: Finding, rows: Rows | None = None) -> None:
        self.findings.append(finding)
        if rows is not None:
            before = self.rows.get(finding.kind)
            self.rows[finding.kind] = rows if before is None else np.union1d(before, rows)

    def into(self, audit: Audit) -> Audit:
        """The audit with all of it; what is wrong comes first."""
        named: dict[str, Kind] = {}
        bad = {one.kind for one in self.findings if one.bad}
        for kind, rows in self.rows.items():
            if kind in bad:
                named |= {
                    self.held.ids[row]: kind for row in rows if self.held.ids[row] not in named
                }
        ordered = sorted(self.findings, key=lambda one: not one.bad)
        return replace(audit, findings=ordered, named=named)


def tell_text(told: Told, one: Format, *, chosen: bool) -> None:
    """Most vectors are of another text than the one that was looked at."""
    told.add(Finding(
        "text", f"the vectors are of {one.name}, not of the text that was looked at; all others "
        "are held against that", one.hint, bad=chosen,
    ))  # fmt: skip


def tell_model(told: Told, search: Search, model: Model) -> None:
    """What holds for all: another model, or one that drifted."""
    judge, name = search.judge, f"{model.provider} {model.name}"
    cosines = judge.cosines[search.sample]
    cosines = cosines[np.isfinite(cosines)]
    if not len(cosines):
        return
    median = float(np.median(cosines))
    if not len(search.good):
        told.add(Finding(
            "model", f"{name} made none of these vectors: of {len(cosines):,} texts the median "
            f"cosine is {median:.2f}",
            "Name the model that did with --model, or the text that was embedded with --text.",
        ))  # fmt: skip
    elif search.drifted:
        told.add(Finding(
            "drift", f"{name} gives vectors today that are a little off for nearly every record: "
            f"the median cosine is {median:.4f}, where it is {judge.least:.4f} or more with itself",
            "Another version or quantisation answers to its name: bring the old one back, or "
            "embed all of the collection anew with `reembed run`.",
        ))  # fmt: skip


def tell_mixture(told: Told, found: Mixture | None, rows: Rows, rng: np.random.Generator) -> str:
    """Two models, told without asking one. Returns what is to be said of it besides.

    Args:
        rows: that were looked at.
    """
    if found is None:
        return (
            "no sign of two models in vectors and words; groups below about 1 % and models that "
            "place texts alike are not seen that way"
        )
    if not found.is_model:
        return (
            f"{int(found.group.sum()):,} of {len(rows):,} vectors lie apart, and words tell these "
            "texts from the others too: a topic or a language, or another model; that cannot be "
            "told without asking the model (--model)"
        )
    held, bad = told.held, rows[found.group]
    part = share(len(bad), len(rows), len(held.judgeable))
    percent = 100 * len(bad) / len(rows)
    low, high = part.of(len(held.judgeable))
    told.add(Finding(
        "mixed", f"two populations, {percent:.1f} % and {100 - percent:.1f} %: their vectors lie "
        "apart, and the words of their texts do not; two models made them",
        "`--model` names the records of the other one, and `--fix` embeds them again.",
        True, len(bad), part, low, high, [held.ids[row] for row in bad[:SHOWN]],
        places(held, bad, rows[~found.group], rng),
    ))  # fmt: skip
    return "which of the two models is the right one cannot be told without asking it"


def tell_kinds(told: Told, search: Search, named: Named, explained: dict[Format, Rows]) -> None:
    """What is wrong with single records."""
    counted = _Counted(search)
    if len(search.by_vectors):
        kind: Kind = max(named, key=lambda one: len(named[one])) if named else "foreign"
        named[kind] = np.union1d(named.get(kind, search.by_vectors[:0]), search.by_vectors)
    for kind, rows in named.items():
        if kind == "format":
            continue
        told.add(counted.finding(kind, rows, WORDS[kind], FIX), rows)
    for one, rows in explained.items():
        told.add(counted.finding("format", rows, f"{WORDS['format']}: {one.name}", FIX), rows)
    refused = search.judge.rows(REFUSED)
    if len(refused):
        told.add(counted.finding(
            "refused", refused, "have a text that the model does not embed, or were changed "
            "meanwhile", bad=False,
        ))  # fmt: skip


@dataclass
class _Counted:
    """Counts a kind in the sample, for how many there are in all."""

    search: Search

    def finding(
        self, kind: Kind, rows: Rows, words: str, hint: str = "", *, bad: bool = True
    ) -> Finding:
        search, held = self.search, self.search.held
        population = len(held.judgeable)
        whole = len(search.sample) == population
        told: Share | None = None
        low = high = len(rows)
        if not whole:
            seen = int(np.isin(search.sample, rows).sum())
            told = share(seen, len(search.sample), population)
            low, high = told.of(population)
            low = max(low, len(rows)) if high >= len(rows) else len(rows)
            high = max(high, low)
        where = search.locate(rows) if bad else []
        ids = [held.ids[row] for row in rows[:SHOWN]]
        return Finding(
            kind, of_records(len(rows), words), hint, bad, len(rows), told, low, high, ids, where
        )
