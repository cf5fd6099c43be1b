"""A run's report beside it: `report.html` and `summary.md` in the run directory."""

from __future__ import annotations

from collections.abc import Callable

from reembed.manifest import Manifest
from reembed.progress import stage
from reembed.report.gather import Report, read_report
from reembed.run.directory import RunDir
from reembed.run.disk import write_atomic

REPORT_FILE = "report.html"
SUMMARY_FILE = "summary.md"


@stage("write the report")
def write_report(manifest: Manifest, run: RunDir, told: Callable[[str], None]) -> Report:
    """Write both files, log them where the manifest says, and return what they show.

    Args:
        told: what became of the logging, which stops nothing.

    Raises:
        PreflightError: the disk is full or may not be written to.
    """
    report = read_report(manifest.name, run, manifest.path)
    write_atomic(run.path / REPORT_FILE, report.to_html().encode())
    write_atomic(run.path / SUMMARY_FILE, report.to_markdown().encode("utf-8", "replace"))
    if manifest.report.mlflow is not None:
        from reembed.report.mlflow import log_report  # httpx takes its time to load

        log_report(manifest.report.mlflow, report, told)
    return report
