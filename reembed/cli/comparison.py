"""A comparison of models for a terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from reembed.commands.compare import Candidate, ModelComparison
from reembed.progress import human_bytes, human_time
from reembed.quality.statistics import Interval

BAR = 40
"""Characters of a bar for all queries."""


def comparison_text(comparison: ModelComparison) -> RenderableType:
    """The advice, a bar a model, then a row a figure and a column a model."""
    advice = comparison.recommendation
    columns = [_current(comparison), *(_column(one, comparison.k)
                                       for one in comparison.candidates)]  # fmt: skip
    table = Table(box=None, padding=(0, 1), header_style="bold")
    table.add_column("", style="dim")
    for name in ("current", *(candidate.manifest for candidate in comparison.candidates)):
        table.add_column(name, overflow="fold")
    for name in columns[1]:
        table.add_row(name, *(column.get(name, "-") for column in columns))
    about = (
        f"{comparison.sampled:,} of {comparison.records:,} records of {comparison.collection}, "
        f"{comparison.queries:,} {comparison.kind} queries"
    )
    heading = Text(f"recommendation: {advice.headline}", "bold green" if advice.choice else "bold")
    notes = (Text(note, "yellow") for note in comparison.notes)
    return Group(Text(about, "dim"), heading, Text(advice.why), _bars(comparison), table, *notes)


def _bars(comparison: ModelComparison) -> Table:
    table = Table(box=None, padding=(0, 1), show_header=False)
    for name, recall in comparison.recalls().items():
        style = "dim" if name == "current" else "cyan"
        table.add_row(name, Text("\N{FULL BLOCK}" * round(BAR * recall), style),
                      f"{recall * 100:.1f} %")  # fmt: skip
    return table


def _current(comparison: ModelComparison) -> dict[str, str]:
    current, k = comparison.current, comparison.k
    rows = {"model": current.model or "not known", "index of all": human_bytes(current.index_bytes)}
    if current.dimensions:
        rows["dimensions"] = str(current.dimensions)
    if current.metrics:
        rows[f"recall@{k}"] = _mean(current.metrics["recall"])
        rows[f"nDCG@{k}"] = _mean(current.metrics["ndcg"])
    return rows


def _column(candidate: Candidate, k: int) -> dict[str, str]:
    recall, ndcg = candidate.metrics["recall"], candidate.metrics["ndcg"]
    rows = {
        "model": candidate.model, "dimensions": str(candidate.dimensions),
        f"recall@{k}": _mean(recall["mean"]), "  change": _difference(recall["change"]),
        "  to the first": _difference(recall["difference"]),
        f"nDCG@{k}": _mean(ndcg["mean"]), "  change ": _difference(ndcg["change"]),
        "  to the first ": _difference(ndcg["difference"]),
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
