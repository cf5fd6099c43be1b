"""A pytest plugin that fails the run if a test was skipped: in CI a skip hides a missing install.

Loaded with `-p tests.plugins.no_skips`. A skip whose reason names `../shared` (data that lies
beside some checkouts) is let pass where that folder is absent, and listed.
"""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2].parent / "shared"

_forbidden: list[str] = []
_allowed: list[str] = []


def _note(report: pytest.TestReport | pytest.CollectReport) -> None:
    if not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    excused = "../shared" in reason and not SHARED.exists()
    (_allowed if excused else _forbidden).append(f"{report.nodeid}: {reason}")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _note(report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    _note(report)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if _forbidden and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _allowed:
        terminalreporter.section("skipped because ../shared is absent")
        for line in _allowed:
            terminalreporter.write_line(line)
    if _forbidden:
        terminalreporter.section("skipped, and nothing may be skipped here", red=True)
        for line in _forbidden:
            terminalreporter.write_line(line)
