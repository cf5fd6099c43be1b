"""What makes a gate pass that did not: the manifest key to change, and the command to type."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from reembed.quality.index import neighbours_key
from reembed.quality.integrity import KINDS
from reembed.quality.noninferiority import FEWEST_QUERIES
from reembed.quality.verdict import Gate, Verdict

HARMED = ("missing", "extra", "changed", "duplicated", "without a vector", "of wrong dimension",
          "not finite or zero", "with another vector", "with a vector of other length",
          "in damaged files", "quarantined but loaded", "quarantined without a reason")  # fmt: skip
"""Findings of the integrity gate that a run puts right from its own files."""
MORE_NEIGHBOURS = 2
"""Times its present neighbours that an index is to have whose graph is too thin."""
MOST_NEIGHBOURS = 100
"""More of them pgvector does not take."""


@dataclass(frozen=True)
class Remedy:
    """A way to a verdict that passes.

    Attributes:
        gate: that it is for.
        does: what to change, and what follows from it; empty where the command is enough.
        command: to type afterwards, complete.
    """

    gate: str
    does: str
    command: str

    def __str__(self) -> str:
        return f"{self.does}, then: {self.command}" if self.does else self.command

    def to_dict(self) -> dict[str, str]:
        return asdict(self)


def remedies(verdict: Verdict, manifest: str) -> list[Remedy]:
    """For each gate in the way, what to do about it.

    Args:
        manifest: path of the manifest, as commands name it.
    """
    ways = [(_REMEDIES.get(gate.name, _again), gate) for gate in verdict.failing]
    return [one for way, gate in ways for one in way(gate, manifest)]


def _integrity(gate: Gate, manifest: str) -> list[Remedy]:
    figures = gate.figures
    found: list[Remedy] = []
    run, restart = f"reembed run {manifest}", f"reembed run {manifest} --restart"
    quarantined = figures.get("quarantined", 0)
    if quarantined > figures.get("allow_quarantined", 0):
        found.append(Remedy(
            gate.name, f"set verify.allow_quarantined: {quarantined} in the manifest, which moves "
            "the collection without them", run))  # fmt: skip
    harmed = [kind for kind in HARMED if figures.get(kind)]
    if harmed:
        found.append(Remedy(gate.name, "write them again from the run's own files", run))
    other = [kind for kind in KINDS if figures.get(kind) and kind not in HARMED]
    if other or not found:
        found.append(Remedy(gate.name, "build the new collection anew", restart))
    return found


def _opening(gate: Gate, manifest: str) -> list[Remedy]:
    does = (
        "set target.embedding_function: none in the manifest, which keeps no embedding function "
        "with the new collection"
    )
    return [Remedy(gate.name, does, f"reembed run {manifest} --restart")]


def _fidelity(gate: Gate, manifest: str) -> list[Remedy]:
    restart = f"reembed run {manifest} --restart"
    found: list[Remedy] = []
    if (gate.figures.get("tail") or {}).get("seen") is False:
        does = (
            "set model.max_tokens to what the model's server really reads of a text, and "
            "model.on_too_long: mean"
        )
        found.append(Remedy(gate.name, does, restart))
    does = (
        "check that the model is called as it was (model.base_url, prefixes, options), and set "
        "embed.cache: false, which embeds every text again"
    )
    return [*found, Remedy(gate.name, does, restart)]


def _index(gate: Gate, manifest: str) -> list[Remedy]:
    figures, restart = gate.figures, f"reembed run {manifest} --restart"
    limit = figures.get("limit", 1.0)
    settings: dict[str, Any] = figures.get("settings") or {}
    enough = next((one["asked"] for one in figures.get("deeper") or []
                   if one["recall"] >= limit), None)  # fmt: skip
    if settings.get("type") == "ivfflat":
        lists = settings.get("lists", 100)
        does = (f"let each search read more of the index's lists: ALTER DATABASE .. SET "
                f"ivfflat.probes = {lists} reads all of them, and a search takes longer the more "
                "it reads")  # fmt: skip
        other = "set target.index.type: hnsw in the manifest, without lists"
        again = f"reembed verify {manifest}"
        return [Remedy(gate.name, other, restart), Remedy(gate.name, does, again)]
    if enough is not None and "type" in settings:
        does = f"let the database look further: ALTER DATABASE .. SET hnsw.ef_search = {enough}"
        return [Remedy(gate.name, does, f"reembed verify {manifest}")]
    if enough is not None:
        does = f"set target.index.ef_search: {enough} in the manifest"
    else:
        now = int(settings.get("max_neighbors") or settings.get("m") or 16)
        more = min(now * MORE_NEIGHBOURS, MOST_NEIGHBOURS)
        does = (f"set target.index.{neighbours_key(settings)}: {more} and "
                "target.index.ef_construction: 400 in the manifest")  # fmt: skip
    return [Remedy(gate.name, does, restart)]


def _recall(gate: Gate, manifest: str) -> list[Remedy]:
    figures, verify = gate.figures, f"reembed verify {manifest}"
    difference, needed = figures.get("difference"), figures.get("queries_to_settle")
    without = "take verify.qrels out of the manifest to go on without this comparison"
    if not isinstance(difference, dict):
        return [Remedy(gate.name, f"give the old model as source.model, or {without}", verify)]
    if figures.get("queries", FEWEST_QUERIES) < FEWEST_QUERIES:
        does = f"judge at least {FEWEST_QUERIES} queries in verify.queries and verify.qrels, or "
        return [Remedy(gate.name, does + without, verify)]
    if gate.status == "inconclusive":
        about = f" (about {needed:,} decide it)" if needed else ""
        does = f"judge more queries in verify.queries and verify.qrels{about}"
        first = Remedy(gate.name, does, verify)
    else:
        does = (
            "check model.query_prefix and model.document_prefix, or take another model (`reembed "
            "compare` asks several)"
        )
        first = Remedy(gate.name, does, f"reembed run {manifest} --restart")
    accepts = -float(difference["low"]) + 0.001
    does = f"set verify.margin: {accepts:.3f} in the manifest, which accepts the loss"
    return [first, Remedy(gate.name, does, verify)]


def _late(gate: Gate, manifest: str) -> list[Remedy]:
    return [Remedy(gate.name, "", f"reembed sweep {manifest}")]


def _again(gate: Gate, manifest: str) -> list[Remedy]:
    return [Remedy(gate.name, "", f"reembed verify {manifest}")]


_REMEDIES: dict[str, Callable[[Gate, str], list[Remedy]]] = {
    "integrity": _integrity, "opening": _opening, "fidelity": _fidelity, "index": _index,
    "recall": _recall, "late writes": _late,
}  # fmt: skip
