"""Results at Python's prompt are one line, and in a notebook a table in which nothing that others
wrote is markup."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import reembed
from reembed import Gate, Manifest, Migrations, Verdict
from reembed.commands.audit.result import Audit
from reembed.commands.watch.findings import Finding
from reembed.commands.watch.result import WatchResult
from reembed.display.shown import LONGEST, Shown
from tests.support.chroma_data import chroma, plain_collection
from tests.support.manifests import migration, write_group_manifest
from tests.support.report_cases import HOSTILE, finished_run, hostile_report

LINE = 220


class Elements(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.names: set[str] = set()
        self.words = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.names |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.words += data + "\n"


def looked_at(result: Any) -> Elements:
    """The elements of a result in a notebook, once it is seen that it is harmless."""
    assert isinstance(result, Shown)
    line = repr(result)
    assert line.startswith(f"<{type(result).__name__} ") and line.endswith(">")
    assert "\n" not in line and len(line) < LINE
    found = Elements(result._repr_html_())
    assert found.tags <= {"div", "strong", "table", "tbody", "tr", "th", "td", "code", "iframe"}
    assert found.names <= {"style", "scope", "srcdoc", "sandbox", "title"}
    return found


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_run(tmp_path_factory.mktemp("shown"))


def test_what_a_migration_returns_is_shown_in_a_line_and_a_table(path: Path) -> None:
    move = migration(path)
    plan = move.plan()
    assert repr(plan).startswith("<Plan move: 'docs' to 'docs__counting_model-new-64', 151 records")
    assert "nothing in the way" in repr(plan)
    looked_at(plan)
    status = move.status()
    assert "move: verified, 151 exported = 150 loaded + 1 quarantined, safe to swap" in repr(status)
    assert f"reembed swap {path.name}" in looked_at(status).words.replace(f"{path.parent}/", "")
    assert status.verdict is not None
    words = looked_at(status.verdict).words
    assert all(gate.message in words for gate in status.verdict.gates)
    assert repr(status.verdict).startswith(f"<Verdict of run {status.run}: pass, ")
    dry = move.swap(dry_run=True)
    assert repr(dry).startswith("<SwapResult swap (dry run), 'docs' leads to ")
    looked_at(dry)


def test_a_report_is_the_page_in_a_frame_that_runs_nothing(path: Path) -> None:
    report = hostile_report(migration(path).report())
    found = looked_at(report)
    assert found.tags == {"iframe"} and "sandbox" in found.names
    assert HOSTILE not in report._repr_html_()


def test_several_collections_are_a_row_each(tmp_path: Path) -> None:
    with chroma(tmp_path / "db") as client:
        for name in ("one", "two"):
            plain_collection(client, name, count=30)
    path = write_group_manifest(tmp_path, f"chroma:{tmp_path / 'db'}")
    move = Migrations(Manifest.load(path))
    plan = move.plan()
    assert repr(plan).startswith("<GroupPlan move: 2 collections, 60 records, ")
    assert {"one", "two"} <= set(looked_at(plan).words.split())
    result = move.run(until="load")
    assert repr(result).startswith("<GroupResult move: loaded, 2 collections, 60 records")
    assert {"one", "two"} <= set(looked_at(result).words.split())
    many = replace(result, members=result.members * 500)
    assert "980 more" in looked_at(many).words
    given_up = move.clean()
    assert repr(given_up).startswith("<GroupSwap clean")
    looked_at(given_up)


def test_names_and_messages_are_never_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "sk-abcdefghijklmnop1234567890")
    from reembed.redaction import read_variable

    secret = read_variable("SOME_API_KEY")
    gate = Gate(HOSTILE, "fail", f"{HOSTILE}\n\x1b[31m {secret} " + "x" * 5000)
    verdict = Verdict(HOSTILE, 1, (gate,))
    for one in (gate, verdict):
        looked_at(one)
        assert secret not in repr(one) + one._repr_html_()
        assert "\x1b" not in repr(one) + one._repr_html_()
    assert "…" in repr(gate) and LONGEST < LINE


def test_every_result_of_the_public_api_is_shown() -> None:
    bare = {"Manifest", "Migration", "Migrations", "ReembedError", "clean_database", "__version__"}
    for name in set(reembed.__all__) - bare:
        assert issubclass(getattr(reembed, name), Shown), name


def test_what_an_audit_and_a_watch_found_is_shown() -> None:
    found = Audit("docs", "chroma:db", 40, 64, notes=[HOSTILE])
    assert repr(found) == "<Audit 'docs': 40 records, without a model, nothing is wrong>"
    looked_at(found)
    alert = Finding("gone", "alert", "docs", f"it is gone {HOSTILE}", "Put it back.")
    seen = WatchResult("m", "chroma:db", 0.0, findings=[alert])
    assert repr(seen) == "<WatchResult m: 0 collections, the store did not answer, 1 findings>"
    assert "Put it back." in looked_at(seen).words
