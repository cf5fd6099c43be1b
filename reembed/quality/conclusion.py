"""What a verdict comes to, in words for whoever has to decide: whether to swap, and what search
will be like afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from reembed.quality.integrity import KINDS
from reembed.quality.noninferiority import FEWEST_QUERIES, KNOWN_ITEM_LOSS
from reembed.quality.verdict import Gate, Verdict

Tone = Literal["good", "caution", "bad"]
"""Green, amber and red. Green is for what was shown to be good, and for nothing else."""

CHECKS = {
    "integrity": "every record arrived unchanged",
    "opening": "applications can open the new collection",
    "fidelity": "the vectors are the model's own",
    "index": "the index finds what is nearest",
    "recall": "search is as good as before",
    "late writes": "nothing written late was left behind",
    "verdict": "the verdict can be read",
}
"""What each gate asks for, as the statement that it holds true."""

PROBLEMS = {
    "integrity": "not every record arrived unchanged",
    "opening": "some applications cannot open the new collection",
    "fidelity": "the vectors are not what the model gives now",
    "index": "the index misses records that it should find",
    "recall": "search is worse than before",
    "late writes": "some late writes are not in the live collection",
    "verdict": "the verdict cannot be read",
}
UNCHANGED = 0.999
"""Share of answers that stay, above which a search is said to give the same."""
UNSETTLED = "it is not proven that search is as good as before"


@dataclass(frozen=True)
class Conclusion:
    """A verdict in words.

    Attributes:
        tone: good, caution or bad.
        headline: one line: whether to swap, and the one thing to know about it.
        search: what search will be like, with the difference in recall; empty where not asked.
    """

    tone: Tone
    headline: str
    search: str = ""

    def to_dict(self) -> dict[str, str]:
        return {"tone": self.tone, "headline": self.headline, "search": self.search}


def conclude(verdict: Verdict, passing: str = "safe to swap") -> Conclusion:
    """The verdict as a person would say it.

    Args:
        passing: what is said of a verdict that passes.
    """
    tone, search = search_in_words(_gate(verdict, "recall"))
    if not search:
        tone, search = _kept_in_words(_gate(verdict, "overlap"))
    if verdict.failing:
        reasons = list(dict.fromkeys(problem(gate) for gate in verdict.failing))
        return Conclusion("bad", f"the swap is refused: {', and '.join(reasons)}", search)
    words = passing
    left_out = _left_out(verdict)
    if left_out:
        tone = "caution"
        records = "record" if left_out == 1 else "records"
        words += f" without {left_out:,} {records} that could not be moved"
    return Conclusion(tone, f"{words}; {search}" if search else words, search)


def basis(verdict: Verdict) -> str:
    """What the verdict rests on, in a sentence or two."""
    if verdict.failing:
        return " ".join(f"{gate.name}: {gate.message}." for gate in verdict.failing)
    gate = _gate(verdict, "recall")
    passed = sum(one.status == "pass" for one in verdict.gates)
    told = f"Every gate passed ({passed})."
    difference = gate.figures.get("difference") if gate else None
    if gate is None or not isinstance(difference, dict):
        why = gate.figures.get("old_model") if gate else ""
        return f"{told} Search was not compared: {why}." if why else told
    figures = gate.figures
    judged = figures["kind"] == "judged"
    made = "judged questions" if judged else "questions made from your own records"
    told += (
        f" Old and new search were compared on {figures['queries']:,} {made}: the new model finds "
        f"the right record among the first {figures['k']} answers in "
        f"{figures['new'] * 100:.1f} % of them, "
        f"the old one in {figures['old'] * 100:.1f} %."
    )
    if gate.status == "shown":
        told += (
            " This is not certain. Questions of your users, with the answers that you judge right, "
            "would decide (verify.queries and verify.qrels)."
        )
    return told


def problem(gate: Gate) -> str:
    """What a gate that did not pass found, in a few words."""
    if gate.name == "recall" and gate.status == "inconclusive":
        return UNSETTLED
    if gate.name == "integrity" and _only_quarantine(gate):
        count = gate.figures["quarantined"]
        return f"{count:,} record{'s' if count > 1 else ''} could not be moved"
    return PROBLEMS.get(gate.name, f"{gate.name} did not pass")


def check(gate: Gate) -> str:
    """What a gate found, as a statement."""
    if gate.status in ("fail", "inconclusive"):
        return problem(gate)
    if gate.name == "recall":
        return search_in_words(gate)[1] or CHECKS["recall"]
    return CHECKS.get(gate.name, gate.name)


def search_in_words(gate: Gate | None) -> tuple[Tone, str]:
    """How search changes, with how sure that is.

    Args:
        gate: the recall gate; None where nothing was searched, as in an empty collection.
    """
    if gate is None:
        return "good", ""
    difference = gate.figures.get("difference")
    if not isinstance(difference, dict):
        return "caution", "search quality was not compared with the old model's"
    mean, low, high = (float(difference[key]) for key in ("mean", "low", "high"))
    by = f"({signed(mean)})"
    if gate.status == "fail":
        return "bad", f"search quality is worse {by}"
    if low > 0:
        return "good", f"search quality is better {by}"
    if gate.status == "pass":
        return _passed(gate.figures, mean, high)
    if high < 0:
        little = "a little " if mean > -KNOWN_ITEM_LOSS else ""
        return "caution", f"search quality is likely {little}worse {by}"
    count = int(gate.figures.get("queries", 0))
    if count < FEWEST_QUERIES:
        return "caution", f"{count:,} questions are too few to compare search quality"
    if mean < 0:
        return "caution", f"search quality may be a little worse {by}"
    return "caution", f"search quality is probably as good {by}"


def _kept_in_words(overlap: Gate | None) -> tuple[Tone, str]:
    """How search changes where vectors are kept: by their metric alone."""
    same = overlap.figures.get("jaccard", {}).get("mean", 1.0) if overlap else 1.0
    if same > UNCHANGED:
        return "good", "search gives the same answers" if overlap else ""
    return "caution", f"search gives other answers: {same:.0%} of them stay"


def signed(value: float) -> str:
    """`+0.004`, and 0.000 without a sign."""
    shown = f"{value:+.3f}"
    return shown[1:] if float(shown) == 0 else shown


def _passed(figures: dict[str, Any], mean: float, high: float) -> tuple[Tone, str]:
    ranking = (figures.get("metrics") or {}).get("ndcg", {}).get("difference", {})
    if ranking and float(ranking["high"]) < -float(figures["margin"]):
        return "caution", "the right answers are found as often, but further down the list"
    if high < 0:
        within = f"within the {figures['margin']} that you allow"
        return "good", f"search quality is slightly worse, {within} ({signed(mean)})"
    return "good", f"search quality is as good as before ({signed(mean)})"


def _gate(verdict: Verdict, name: str) -> Gate | None:
    return next((gate for gate in verdict.gates if gate.name == name), None)


def _left_out(verdict: Verdict) -> int:
    gate = _gate(verdict, "integrity")
    return int(gate.figures.get("quarantined", 0)) if gate else 0


def _only_quarantine(gate: Gate) -> bool:
    """Whether all that is wrong is that more records are quarantined than are allowed."""
    figures = gate.figures
    over = figures.get("quarantined", 0) > figures.get("allow_quarantined", 0)
    whole = figures.get("loaded") == figures.get("records", 0) - figures.get("quarantined", 0)
    return bool(over and whole and not any(figures.get(kind) for kind in KINDS)
                and "other indexes" not in gate.message)  # fmt: skip
