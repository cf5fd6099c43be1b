"""The command line: documents on stdout, everything else on stderr, exit codes as documented."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import reembed as package
from reembed.cli.app import app
from reembed.cli.helping import PANELS
from reembed.manifest import json_schema
from tests.support.chroma_data import chroma, names_in, plain_collection
from tests.support.commands import REEMBED, Calls, Command
from tests.support.following import follows_hint
from tests.support.manifests import migration, run_dir, write_manifest
from tests.support.texts import vector_of

COMMANDS = sorted(
    command.name or command.callback.__name__  # type: ignore[union-attr]
    for command in app.registered_commands
)
ESCAPE = "\x1b["


def test_the_commands_of_the_contract_are_there() -> None:
    assert {
        "init", "plan", "run", "verify", "swap", "rollback", "clean", "sweep", "status", "schema",
    } <= set(COMMANDS)  # fmt: skip


@pytest.mark.parametrize("closed", [">&-", "2>&-"])
def test_a_closed_stream_leads_nowhere(closed: str, tmp_path: Path) -> None:
    # With its number free, the next file that is opened would take what is printed.
    line = f"exec {sys.executable} -m reembed status --log-file log {closed}"
    done = subprocess.run(["sh", "-c", line], cwd=tmp_path, capture_output=True)
    waited = b" status: for "  # on a machine that is slow
    other = [line for line in done.stderr.splitlines() if waited not in line]
    assert done.returncode == 0 and not other, done.stderr
    assert (done.stdout == b"") == (closed == ">&-")
    assert b"no runs" not in (tmp_path / "log").read_bytes()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_json(command: Command, name: str) -> None:
    outcome = command(name, "--help")
    assert outcome.code == 0
    assert "--json" in outcome.out
    assert not outcome.err
    assert command(name, "-h").out == outcome.out


def test_help_names_every_command(command: Command) -> None:
    out = command("--help").out
    assert all(re.search(rf"\b{name}\b", out) for name in COMMANDS)
    assert command("--version").out.strip() == package.__version__


def test_help_groups_every_command_and_says_where_to_begin(command: Command) -> None:
    out = command("--help").out
    assert sorted(name for names in PANELS.values() for name in names) == sorted(COMMANDS)
    places = [out.index(heading) for heading in PANELS]
    assert places == sorted(places)
    assert "Begin with `reembed try URL" in " ".join(out.split())
    assert "<bool>" not in out + command("run", "--help").out


@follows_hint("Begin with `reembed init`, which asks, or with `reembed try URL --model ")
def test_no_arguments_show_the_help_and_where_to_begin(
    command: Command, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = command()
    assert outcome.code == 2
    assert "Usage" in outcome.out and outcome.err.startswith("error: no command is given\n")
    monkeypatch.chdir(database.parent)
    without = command("try", f"chroma:{database}")
    assert "static:wordllama" in without.err and "See `reembed try --help`." in without.err
    assert command("try", f"chroma:{database}", "--model", "static:wordllama").code == 0


def test_the_schema(command: Command) -> None:
    assert command("schema").json == json_schema()
    assert command("schema", "--json").json == json_schema()


def test_every_command_prints_one_document_its_python_twin_returns(
    command: Command, tmp_path: Path, database: Path
) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}", swap__keep_old="0d")

    def document(*arguments: object, code: int = 0) -> dict[str, Any]:
        outcome = command(*arguments, "--json")
        assert outcome.code == code, outcome.err
        assert ESCAPE not in outcome.out + outcome.err
        assert "%|" not in outcome.err, "no bar without a terminal"
        found: dict[str, Any] = outcome.json
        return found

    def same(first: dict[str, Any], second: dict[str, Any], *but: str) -> None:
        assert json.loads(json.dumps(first | dict.fromkeys(but))) == json.loads(
            json.dumps(second | dict.fromkeys(but))
        )

    before = document("status", path)
    same(before, migration(path).status().to_dict())
    assert (before["run"], before["state"]) == ("", "created")
    plan = document("plan", path)
    same(plan, migration(path).plan().to_dict(), "estimate")
    run = document("run", path)
    assert (run["state"], run["next"], run["exit_code"]) == (
        "verified",
        f"reembed swap {path} --yes",
        0,
    )
    again = migration(path).run().to_dict()
    same(run, again, "verdict", "spent")
    assert 0 < run["spent"]["tokens"] < again["spent"]["tokens"], "a verification asks again"
    verified = document("verify", path)
    same(verified, migration(path).verify().to_dict(), "verdict", "spent")
    same(document("status", path), migration(path).status().to_dict())
    for name in ("swap", "rollback", "clean"):
        if name != "clean":
            dry = document(name, path) if name == "swap" else None
            if dry is not None:
                assert dry["done"] is False
                same(dry, migration(path).swap(dry_run=True).to_dict())
                assert document("swap", path, "--yes")["done"] is True
                same(document("sweep", path), migration(path).sweep().to_dict())
            else:
                same(document(name, path), migration(path).rollback(dry_run=True).to_dict())
                assert document(name, path, "--yes")["done"] is True
        else:
            same(document(name, path), migration(path).clean(dry_run=True).to_dict())
            assert document(name, path, "--yes")["messages"]


def test_tables_go_to_stdout_and_progress_to_stderr(
    command: Command, tmp_path: Path, database: Path
) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}")
    outcome = command("run", path, "--swap", "-v")
    assert outcome.code == 0
    assert "verdict: safe to swap" in outcome.out
    assert "docs" in outcome.out
    assert "export: 40 records in" in outcome.err
    assert ESCAPE not in outcome.out + outcome.err
    assert "swapped" in command("status", path).out
    assert "rollback (dry run)" in command("rollback", path).out
    assert command("sweep", path).code == 0
    assert command("plan", path).code == 0


def test_status_without_a_manifest_lists_what_is_here(
    command: Command, tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command("status").out == "no runs in ./.reembed\n"
    assert command("status", "--json").json == {"migrations": []}
    path = write_manifest(tmp_path, f"chroma:{database}")
    migration(path).run(until="export")
    document = command("status", "--json").json
    assert [(m["name"], m["state"]) for m in document["migrations"]] == [("move", "exported")]
    assert "move" in command("status").out


@pytest.mark.parametrize(
    ("until", "state"),
    [("plan", "created"), ("export", "exported"), ("embed", "embedded"), ("load", "loaded")],
)
def test_until(command: Command, tmp_path: Path, database: Path, until: str, state: str) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}")
    document = command("run", path, "--until", until, "--json").json
    assert document["state"] == state
    assert (tmp_path / ".reembed" / "move" / document["run"] / "journal.jsonl").is_file() == (
        until != "plan"
    )
    assert command("run", path, "--until", "swap", "--json").json["state"] == "swapped"


def test_exit_codes_of_quarantine_and_gates(
    command: Command, tmp_path: Path, database: Path
) -> None:
    with chroma(database) as client:
        collection = client.get_collection("docs", embedding_function=None)
        collection.add(ids=["mute"], embeddings=[vector_of("old", "x")])
    path = write_manifest(tmp_path, f"chroma:{database}", verify__allow_quarantined=1)
    command("run", path, "--until", "export")
    path = write_manifest(tmp_path, f"chroma:{database}")
    outcome = command("run", path, "--swap", "--json")
    assert outcome.code == 4
    document = outcome.json
    assert document["error"]["kind"] == "gate"
    assert (document["exported"], document["loaded"], document["quarantined"]) == (41, 40, 1)
    assert document["swap"] is None
    outcome = command("swap", path, "--yes", "--json")
    assert (outcome.code, outcome.json["error"]["exit_code"]) == (4, 4)
    path = write_manifest(tmp_path, f"chroma:{database}", verify__allow_quarantined=1)
    outcome = command("run", path, "--swap", "--json")
    assert (outcome.code, outcome.json["exit_code"]) == (3, 3)
    assert outcome.json["state"] == "swapped"


# Real processes


def test_the_installed_command_and_module_work(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("reembed")
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == package.__version__


@pytest.mark.parametrize("no_color", [False, True])
def test_a_terminal_gets_bars_and_colour_unless_no_color(
    tmp_path: Path, database: Path, no_color: bool
) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}")
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    environment |= {"TERM": "xterm-256color", "COLUMNS": "120"}
    if no_color:
        environment["NO_COLOR"] = "1"
    process = subprocess.Popen(
        [*REEMBED, "run", str(path)],
        env=environment,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    output = b""
    while True:
        try:
            chunk = os.read(controller, 65_536)
        except OSError:
            break
        if not chunk:
            break
        output += chunk
    os.close(controller)
    assert process.wait() == 0
    text = output.decode()
    assert "\rrun" in text
    assert bool(re.search(r"\x1b\[[0-9;]*3[0-9]", text)) != no_color


def begin(path: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*REEMBED, *arguments, str(path), "--json"], env=os.environ | environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for(condition: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_soon_and_it_resumes(
    tmp_path: Path, calls: Calls, number: signal.Signals
) -> None:
    database = tmp_path / "db"
    with chroma(database) as client:
        plain_collection(client, count=600)
    options: Any = {"model__options": {"batch_items": 8}, "embed__concurrency": 1}
    path = write_manifest(tmp_path, f"chroma:{database}", **options)
    with begin(path, "run", REEMBED_TEST_SECONDS="0.2") as process:
        wait_for(lambda: len(calls.texts("new")) > 80)
        process.send_signal(number)
        sent = time.monotonic()
        out, err = process.communicate()
    assert time.monotonic() - sent < 8, "600 texts would take 15 s"
    assert process.returncode == 130, err
    assert json.loads(out)["error"]["kind"] == "interrupted"
    assert "Traceback" not in err
    assert len(calls.texts("new")) < 400
    result = migration(path).run(until="load")
    assert result.loaded == 600
    assert calls.repeated("new", 600) <= 32 + 8, "but for plan's sample and a batch in flight"
    assert names_in(f"chroma:{database}").keys() == {"docs", "docs__counting_model-new-64"}


def test_a_second_process_is_locked_out_and_status_is_not(
    command: Command, tmp_path: Path, database: Path, calls: Calls
) -> None:
    options: Any = {"model__options": {"batch_items": 4}, "embed__concurrency": 1}
    path = write_manifest(tmp_path, f"chroma:{database}", **options)
    with begin(path, "run", REEMBED_TEST_SECONDS="0.3") as process:
        wait_for(lambda: list(tmp_path.glob(".reembed/move/*/journal.jsonl")))
        for arguments in (["run"], ["swap", "--yes"], ["clean", "--yes"]):
            outcome = command(*arguments, path, "--json")
            assert outcome.code == 6
            error = outcome.json["error"]
            assert error["kind"] == "locked"
            assert f"pid {process.pid}" in error["message"]
        outcome = command("status", path, "--json")
        assert outcome.code == 0
        assert outcome.json["run"] == run_dir(path).run_id
        process.kill()
        process.communicate()
    # the kernel gives a dead owner's lease back
    assert command("run", path, "--until", "embed", "--json").code == 0


def test_status_beside_a_run_harms_nothing(tmp_path: Path, database: Path) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}")
    ended = threading.Event()
    seen: list[str] = []

    def look() -> None:
        while not ended.is_set():
            seen.append(migration(path).status().state)

    looking = threading.Thread(target=look)
    with begin(path, "run") as process:
        looking.start()
        try:
            out, err = process.communicate(timeout=100)
        finally:
            ended.set()
            looking.join()
    assert process.returncode == 0, err
    assert json.loads(out)["state"] == "verified"
    assert len(set(seen)) > 2
