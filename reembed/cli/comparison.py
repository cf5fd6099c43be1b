"""A comparison of candidate models for a terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from reembed.commands.compare import Candidate, ModelComparison
from reembed.progress import human_bytes, human_time
from reembed.quality.statistics import Interval


def comparison_text(comparison: ModelComparison) -> RenderableType:
    """A row a figure, a column a candidate; differences are to the first."""
    table = Table(box=None, padding=(0, 1), header_style="bold")
    table.add_column("", style="dim")
    for candidate in comparison.candidates:
        table.add_column(candidate.manifest, overflow="fold")
    columns = [_column(candidate, comparison.k) for candidate in comparison.candidates]
    for name in columns[0]:
        table.add_row(name, *(column[name] for column in columns))
    about = (
        f"{comparison.sampled:,} of {comparison.records:,} records of {comparison.collection}, "
        f"{comparison.queries:,} {comparison.kind} queries"
    )
    return Group(Text(about, "dim"), table, *(Text(note, "yellow") for note in comparison.notes))


def _column(candidate: Candidate, k: int) -> dict[str, str]:
    recall, ndcg = candidate.metrics["recall"], candidate.metrics["ndcg"]
    rows = {
        "model": candidate.model, "dimensions": str(candidate.dimensions),
        f"recall@{k}": _mean(recall["mean"]), "  to the first": _difference(recall["difference"]),
        f"nDCG@{k}": _mean(ndcg["mean"]), "  to the first ": _difference(ndcg["difference"]),
        "tokens of all": f"{candidate.tokens:,}",
        "cost of all": f"${candidate.usd:,.4f}" if candidate.usd is not None else "-",
        "time for all": human_time(candidate.seconds),
        "index of all": human_bytes(candidate.index_bytes),
    }  # fmt: skip
    return rows | {"not embedded": f"{candidate.rejected:,}"}


def _mean(interval: Interval | None) -> str:
    return f"{interval.mean:.4f}" if interval else "-"


def _difference(interval: Interval | None) -> str:
    if interval is None:
        return "-"
    return f"{interval.mean:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"
