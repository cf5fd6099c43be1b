"""The report as one HTML page: no script, no font, no picture, nothing that is fetched.

Its style sheet is inlined and named by its hash in the page's Content-Security-Policy, which allows
nothing else, so that whatever a record's id or text holds cannot run or load anything.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources

from reembed.display.markup import Child, Markup, h
from reembed.report.gather import Report
from reembed.report.html.details import details, iso, utc
from reembed.report.html.examples import example_section
from reembed.report.html.front import front


def page_head(title: str) -> Markup:
    """The head of a page of ours: its style, and a policy that allows nothing else."""
    style = resources.files("reembed.report.html").joinpath("report.css").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return h(
        "head",
        h("meta", charset="utf-8"),
        h("meta", http_equiv="Content-Security-Policy", content=policy),
        h("meta", name="viewport", content="width=device-width, initial-scale=1"),
        h("meta", name="color-scheme", content="light dark"),
        h("meta", name="referrer", content="no-referrer"),
        h("title", f"{title} · reembed"),
        h("style", Markup(style)),
    )


def page(report: Report) -> str:
    """The whole document."""
    main: list[Child] = [front(report), _examples(report), details(report)]
    return document(f"{report.name}: {report.headline}", _eyebrow(report), main, _footer(report))


def document(title: str, header: Child, main: Child, footer: Child) -> str:
    """A page of ours from its parts."""
    body = h("body", h("header", header), h("main", main), h("footer", footer))
    return "<!doctype html>\n" + h("html", page_head(title), "\n", body, lang="en") + "\n"


def _eyebrow(report: Report) -> Markup:
    return h(
        "p", h("strong", "reembed"), " · ", h("bdi", report.name), " · ",
        h("time", utc(report.written)[:16] + " UTC", datetime=iso(report.written)),
        f" · The run is {report.state}", class_="eyebrow",
    )  # fmt: skip


def _examples(report: Report) -> Markup | None:
    for gate in report.verdict.gates if report.verdict else ():
        found = gate.figures.get("examples")
        if gate.name == "recall" and isinstance(found, list) and found:
            kind, k = str(gate.figures.get("kind")), int(gate.figures.get("k") or 0)
            return example_section(found, kind, k)
    return None


def _footer(report: Report) -> list[Child]:
    seed = f" · seed {report.verdict.seed}" if report.verdict else ""
    words = f"reembed {report.reembed} · run {report.run}{seed}"
    return [h("p", words), h("p", "Run directory: ", h("code", report.path))]
