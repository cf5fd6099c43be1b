"""What is said in the middle of a move is done, and the same command goes on."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import psycopg

from tests.support.commands import Command
from tests.support.following import follows_hint
from tests.support.manifests import run_dir
from tests.support.pg_docs import app, pg_manifest
from tests.support.servers.postgres_server import PostgresServer

OURS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'reembed' AND "
    "datname = current_database()"
)
MEANWHILE: list[tuple[str, str, str]] = [
    (OURS, "Run the same command again; it resumes.", ""),
    ('CREATE TABLE "{parked}" (id int)', "Rename that table or move it away; nothing was moved.",
     'ALTER TABLE "{parked}" RENAME TO theirs'),
    ("CREATE TABLE child () INHERITS (docs)",
     "Nothing was moved. Remove that, or set swap.kind: config", "DROP TABLE child"),
    ('DROP TABLE "{shadow}"', "Run the same command again: it says what can be done.", ""),
]  # fmt: skip
"""What others do while the hook before a move runs, the hint, and what undoes it."""


@follows_hint("Run the same command again; it resumes.", where="stores/postgres/client.py")
@follows_hint("Rename that table or move it away; nothing was moved.")
@follows_hint("Nothing was moved. Remove that, or set swap.kind: config")
@follows_hint("Run the same command again: it says what can be done.")
@follows_hint("Move its configuration with swap.before and swap.after.", where="stages/weigh.py")
@follows_hint("Drop what leads there, or create it again so that it leads to the live table")
def test_what_comes_between_a_swap_and_its_move_is_undone_and_the_swap_goes_on(
    docs_url: str, tmp_path: Path, command: Command
) -> None:
    psql = PostgresServer.program("psql")
    path = pg_manifest(tmp_path, docs_url)
    assert command("run", path).code == 0
    run = run_dir(path)
    names = {"parked": f"docs__parked-{run.run_id}", "shadow": "docs__counting_model-new-64"}

    def execute(sql: str) -> None:
        with psycopg.connect(docs_url, autocommit=True) as connection:
            connection.execute(sql.format(**names).encode())

    def refusal(*words: Any) -> str:
        refused = command(*words, "--yes", "--json")
        assert refused.code in (5, 7), refused.out
        return str(refused.json["error"]["hint"])

    for sql, hint, undo in MEANWHILE:
        hook = shlex.join([str(psql), docs_url, "-qc", sql.format(**names)])
        told = refusal("swap", pg_manifest(tmp_path, docs_url, swap__before=hook))
        assert hint in told, told
        path = pg_manifest(tmp_path, docs_url)
        if undo:
            execute(undo)
        if "{shadow}" not in sql:
            assert command("swap", path, "--yes").code == 0
            assert command("rollback", path, "--yes").code == 0
    told = command("plan", path, "--json").json["warnings"]
    assert "Move its configuration with swap.before and swap.after." in {o["hint"] for o in told}
    path = pg_manifest(tmp_path, docs_url, swap__after="echo new > configuration")
    assert f"Move the run directory {run.path} away" in refusal("swap", path)
    run.path.rename(tmp_path / "away")
    assert command("run", path, "--swap").code == 0
    assert (tmp_path / "configuration").read_text() == "new\n"
    names["parked"] = f"docs__parked-{run_dir(path).run_id}"
    execute('CREATE VIEW seen AS SELECT id FROM "{parked}"')
    assert "Drop what leads there" in refusal("clean", path)
    execute("DROP VIEW seen")
    assert command("clean", path, "--yes").code == 0
    with app(docs_url) as docs:
        assert docs.model == "new" and docs.wrong_vectors("new") == []
