"""A comparison of models as one HTML page, in the form of the report."""

from __future__ import annotations

from reembed.commands.compare import Candidate, ModelComparison
from reembed.display.markup import Child, Markup, h
from reembed.progress import human_bytes, human_time
from reembed.quality.statistics import Interval
from reembed.redaction import redacted_values
from reembed.redaction.terminal import harmless
from reembed.report.html.charts import share_chart
from reembed.report.html.figures import Span
from reembed.report.html.front import card, sentence_case, verdict_banner
from reembed.report.html.page import document


def page(comparison: ModelComparison) -> str:
    """The whole document, without secrets."""
    advice = comparison.recommendation
    title = f"Right record among the first {comparison.k} answers"
    chart = share_chart(title, comparison.recalls(), _spans(comparison))
    about = (
        f"{comparison.sampled:,} of {comparison.records:,} records, {comparison.queries:,} "
        f"{comparison.kind} queries. A sample is easier to search than the whole collection, so "
        "the shares are higher than they will be; the differences are what counts."
    )
    notes = [h("p", note, class_="muted") for note in comparison.notes]
    cards = [
        card("Search quality", h("figure", h("figcaption", title), chart), "chart"),
        card("Figures", h("div", _table(comparison), class_="scroll"), "members"),
    ]
    main: list[Child] = [
        verdict_banner("good" if advice.choice else "none", advice.headline, advice.why),
        h("div", cards, class_="cards"), h("p", about, class_="muted"), notes,
    ]  # fmt: skip
    eyebrow = h("p", h("strong", "reembed"), " · models for ", h("bdi", comparison.collection),
                class_="eyebrow")  # fmt: skip
    footer = h("p", f"seed {comparison.seed}")
    words = f"models for {comparison.collection}: {advice.headline}"
    return harmless(redacted_values(document(words, eyebrow, main, footer), words=False))


def _spans(comparison: ModelComparison) -> dict[str, Span | None]:
    found: dict[str, Interval | None] = {
        one.manifest: one.metrics["recall"]["mean"] for one in comparison.candidates
    }
    if comparison.current.metrics:
        found["current"] = comparison.current.metrics["recall"]
    return {name: Span(one.mean, one.low, one.high) if one else None for name, one in found.items()}


def _table(comparison: ModelComparison) -> Markup:
    current = comparison.current
    recall = current.metrics.get("recall")
    size = human_bytes(current.index_bytes)
    dimensions = str(current.dimensions or "")
    rows = [_row("current", current.model or "not known", _share(recall), "", dimensions, "", "",
                 size)]  # fmt: skip
    rows += [_candidate(one, chosen=one.manifest == comparison.recommendation.choice)
             for one in comparison.candidates]  # fmt: skip
    names = ("", "model", "right answers", "change", "dimensions", "cost of all", "time for all",
             "index")  # fmt: skip
    head = h("tr", [h("th", name, scope="col") for name in names])
    return h("table", h("thead", head), h("tbody", rows))


def _candidate(one: Candidate, *, chosen: bool) -> Markup:
    recall = one.metrics["recall"]
    cost = f"${one.usd:,.4f}" if one.usd is not None else "no known price"
    name = f"{one.manifest} \N{CHECK MARK}" if chosen else one.manifest
    found = (_share(recall["mean"]), _change(recall["change"]))
    needs = (cost, human_time(one.seconds), human_bytes(one.index_bytes))
    return _row(name, one.model, *found, str(one.dimensions), *needs)


def _row(name: str, *cells: str) -> Markup:
    return h("tr", h("th", h("bdi", sentence_case(name) if name == "current" else name),
                     scope="row"), [h("td", h("bdi", cell)) for cell in cells])  # fmt: skip


def _share(interval: Interval | None) -> str:
    return f"{interval.mean * 100:.1f} %" if interval else "not asked"


def _change(interval: Interval | None) -> str:
    if interval is None:
        return ""
    return (f"{interval.mean * 100:+.1f} ({interval.low * 100:+.1f} to "
            f"{interval.high * 100:+.1f})")  # fmt: skip
