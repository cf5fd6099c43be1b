"""A run's report beside it: `report.html` and `summary.md` in the run directory."""

from __future__ import annotations

from pathlib import Path

from reembed.disk import write_atomic
from reembed.progress import stage
from reembed.report.gather import Report, read_report
from reembed.run.directory import RunDir

REPORT_FILE = "report.html"
SUMMARY_FILE = "summary.md"


@stage("write the report")
def write_report(name: str, run: RunDir, manifest: Path | None = None) -> Report:
    """Write both files and return what they show.

    Raises:
        PreflightError: the disk is full or may not be written to.
    """
    report = read_report(name, run, manifest)
    write_atomic(run.path / REPORT_FILE, report.to_html().encode())
    write_atomic(run.path / SUMMARY_FILE, report.to_markdown().encode("utf-8", "replace"))
    return report
