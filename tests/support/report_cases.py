"""A finished run with names that try to be markup, and a report with every kind of figure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from reembed.quality.conclusion import conclude
from reembed.quality.remedies import remedies
from reembed.quality.verdict import Gate, Verdict
from reembed.report.gather import Report
from tests.support.chroma_data import chroma, plain_collection
from tests.support.manifests import migration, write_manifest

HOSTILE = '<script>alert("x")</script><img src=x onerror=alert(1)>'
SPAN = {"mean": 0.5, "low": 0.4, "high": 0.6, "confidence": 0.95, "n": 300}
HISTOGRAM = {"edges": [0.0, 0.5, 1.0], "counts": [3, 7]}
QUANTILES = {"mean": 2.0, "min": 0.0, "p5": 1.0, "p25": 1.5, "median": 2.0, "p75": 2.5,
             "p95": 3.0, "max": 9.0}  # fmt: skip


def finished_run(folder: Path) -> Path:
    """A manifest whose run is verified: 150 records, one of them quarantined for want of a text."""
    with chroma(folder / "chroma") as client:
        docs = plain_collection(client, count=150)
        docs.add(ids=[HOSTILE], documents=[" "], metadatas=[{"title": HOSTILE}],
                 embeddings=np.full((1, 48), 0.1, np.float32))  # fmt: skip
    path = write_manifest(folder, "chroma:./chroma", verify__allow_quarantined=1)
    result = migration(path).run()
    assert result.verdict is not None
    return path


def every_figure() -> dict[str, Any]:
    """Figures of every shape that gates are known to have, and of some that none has."""
    answer = {"id": HOSTILE, "text": HOSTILE, "score": 0.5}
    return {
        "k": 10, "queries": 300, "new": 0.5, "old": 0.6, "difference": SPAN, "margin": 0.02,
        "metrics": {"recall": {"new": SPAN, "old": SPAN, "difference": SPAN},
                    "ndcg": {"new": SPAN, "old": SPAN, "difference": SPAN}},
        "differences": HISTOGRAM, "quantiles": QUANTILES, "all equal": {"edges": [1, 1 + 1e-9],
                                                                       "counts": [9]},
        "both": {"old": HISTOGRAM, "new": HISTOGRAM}, "nothing": {"edges": [], "counts": []},
        "worst": [{"query": HOSTILE, "difference": -1.0, "old": [answer], "new": []}] * 25,
        "groups": {HOSTILE: [{"value": HOSTILE, "pairs": 3, "new": 0.5, "old": None}]},
        "unforeseen": {"deep": {"deeper": {"deepest": {"a": {"b": {"c": [1, [2]]}}}}}},
        "not a number": float("nan"), "infinite": float("inf"), "nobody": None, "yes": True,
        "examples": [{"query": HOSTILE, "old": [answer], "new": [], "old_rank": 7, "new_rank": None,
                      "expected": [{"id": HOSTILE, "text": HOSTILE}]}] * 3,
        "asked": {"old": {"name": HOSTILE, "provider": HOSTILE, "query_prefix": HOSTILE}},
        "texts": [HOSTILE, HOSTILE], HOSTILE: HOSTILE, "long": "x" * 5000,
        "rows": [{"a": i, "b": HOSTILE} for i in range(60)],
    }  # fmt: skip


def hostile_report(report: Report) -> Report:
    """The report with markup in every name, refused, with every kind of figure."""
    gates = (
        Gate("integrity", "fail", f"3 missing: {HOSTILE}", {"records": 3}, {"missing": [HOSTILE]}),
        Gate("recall", "inconclusive", HOSTILE, every_figure()),
        Gate("vectors", "shown", "hubs", {"old": {"lengths": QUANTILES, "hubness": 1.0},
                                          "new": {"lengths": QUANTILES, "hubness": 2.0}}),
        Gate("latency", "shown", "fast", {"old": QUANTILES, "new": QUANTILES}),
        Gate(HOSTILE, "pass", "", {}),
    )  # fmt: skip
    verdict = Verdict(report.run, 1, gates)
    return replace(
        report, name=HOSTILE, target=HOSTILE, sentence=HOSTILE, outcome="refused", mood="bad",
        headline=conclude(verdict).headline, remedies=remedies(verdict, "m.yaml"),
        source=report.source | {"name": HOSTILE, "model": {"provider": "x", "name": HOSTILE}},
        model={"provider": HOSTILE, "name": HOSTILE}, manifest=f"name: {HOSTILE}\n",
        swap={"kind": "rename", "guarantee": HOSTILE, "live": HOSTILE},
        verdict=verdict,
    )  # fmt: skip
