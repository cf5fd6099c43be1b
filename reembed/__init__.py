"""Move a live vector collection from one embedding model to another, safely."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reembed.cutover.leftovers import clean_database
    from reembed.errors import ReembedError
    from reembed.manifest import Manifest
    from reembed.migration import Migration
    from reembed.migration.group.migrations import Migrations
    from reembed.quality.verdict import Gate, Verdict
    from reembed.report.gather import Report
    from reembed.report.results import RunResult, SwapResult
    from reembed.stages.plan import Plan

__version__ = "0.1.0"

__all__ = [
    "Gate",
    "Manifest",
    "Migration",
    "Migrations",
    "Plan",
    "ReembedError",
    "Report",
    "RunResult",
    "SwapResult",
    "Verdict",
    "__version__",
    "clean_database",
]

_MODULES = {
    "Gate": "reembed.quality.verdict",
    "Manifest": "reembed.manifest",
    "Migration": "reembed.migration",
    "Migrations": "reembed.migration.group.migrations",
    "Plan": "reembed.stages.plan",
    "ReembedError": "reembed.errors",
    "Report": "reembed.report.gather",
    "RunResult": "reembed.report.results",
    "SwapResult": "reembed.report.results",
    "Verdict": "reembed.quality.verdict",
    "clean_database": "reembed.cutover.leftovers",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import reembed` stays instant."""
    if name not in _MODULES:
        raise AttributeError(f"module 'reembed' has no attribute {name!r}")
    importlib.import_module("reembed.errors").refuse_windows()
    return getattr(importlib.import_module(_MODULES[name]), name)
