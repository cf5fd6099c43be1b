"""Odd input and odd surroundings end with a clear error of the right code, never as a bug.

Manifests are fuzzed with YAML's tags, aliases and control characters: a short form here, 10,000 in
`make soak`.
"""

from __future__ import annotations

import os
import random
import resource
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.commands import REEMBED, Command
from tests.support.following import follows_hint
from tests.support.manifests import manifest_data, write_manifest
from tests.support.texts import CASES

FUZZED = int(os.environ.get("REEMBED_FUZZED", "80"))

TAGS = ["!!timestamp", "!!int", "!!float", "!!bool", "!!null", "!!binary", "!!set", "!!omap",
        "!!pairs", "!!str", "!!seq", "!!map", "!!merge", "!!value", "!!python/name:os.system",
        "!!python/object/apply:os.system", "!!python/tuple", "!local", "!<tag:yaml.org,2002:int>",
        "!!python/module:os", "!", "!!"]  # fmt: skip
VALUES = [
    "x", "''", "", "[]", "[1]", "{}", "{a: b}", "~", "2026-13-45", "0b_", "0x_", "+", "1" * 5000,
    "0x" + "f" * 9000, "1e999", ".nan", "-.inf", "1:99:99", "\"\\e[31mred\\x9b2J\"", "'\u202eabc'",
    "\"\\0\"", "\"\\ud800\"", "'[/red]'", "!!int ''", "&a [*a]", "&b {<<: *b}", "*c", "<<", "?",
    "- -", "|\n    a", ">-\n    b", "'unclosed", "[[[[[[", "{x: {x: {x: {x: 1}}}}", "\t",
    "${NOBODY}", "${HOME}", "${", "$${x}", "@x", "`x`", "%x", "\u0085", "\ufeff", "true", "null",
    "-1", "0",
    "99999999999999999999", "9" * 40, "'; DROP TABLE x;--", "../../x", "/dev/zero", "a" * 3000,
]  # fmt: skip


def fuzzed(seed: int, data: dict[str, Any]) -> str:
    """A manifest with something odd in it: a value, a key or raw bytes."""
    chance = random.Random(seed)
    text = yaml.safe_dump(data, sort_keys=False)
    lines = text.splitlines()
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        place = chance.randrange(len(lines))
        key, colon, _ = lines[place].partition(":")
        tag = f"{chance.choice(TAGS)} " if chance.random() < 0.6 else ""
        value = chance.choice(VALUES)
        kind = chance.random()
        if kind < 0.7 and colon:
            lines[place] = f"{key}: {tag}{value}"
        elif kind < 0.8:
            indent = " " * (len(lines[place]) - len(lines[place].lstrip()))
            lines.insert(place, f"{indent}{tag}{value}: {value}")
        elif kind < 0.9:
            cut = chance.randrange(len(lines[place]) + 1)
            lines[place] = lines[place][:cut] + value + lines[place][cut:]
        else:
            lines[place] = f"{tag}{lines[place]}"
    return "\n".join(lines) + "\n"


def acted_on(text: str) -> str:
    return "".join(c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs") and c != "\n")


def fuzz(seeds: range, tmp_path: Path, command: Command) -> None:
    data = manifest_data("chroma:./nothing-here", verify={"sample": 300}, swap={"before": "true"})
    data["source"] |= {"where": {"n": {"$gt": 1}}, "data_dir": None}
    path = tmp_path / "m.yaml"
    for seed in seeds:
        text = fuzzed(seed, data)
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        for arguments in (("plan", path, "--json"), ("status", path)):
            outcome = command(*arguments)
            told = outcome.out + outcome.err
            assert outcome.code in (0, 5, 7), f"seed {seed}: {told}\n{text}"
            assert acted_on(told) == "", f"seed {seed}: {told!r}"
    assert not list(tmp_path.glob("*.reembed")), "nothing was written"


def test_fuzzed_manifests_end_in_order(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fuzz(range(FUZZED), tmp_path, command)


@pytest.mark.long
@pytest.mark.timeout(0)
def test_ten_thousand_fuzzed_manifests(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fuzz(range(1_000_000, 1_010_000), tmp_path, command)


@pytest.mark.parametrize(
    "text", ["!!timestamp x", "!!int ''", "!!bool maybe", "!!set [1]", "!!map x"]
)
def test_a_value_that_does_not_fit_its_tag(tmp_path: Path, command: Command, text: str) -> None:
    path = write_manifest(tmp_path, "chroma:./nothing-here")
    path.write_text(path.read_text() + f"text: {text}\n")
    error = command("plan", path, "--json").json["error"]
    assert (error["exit_code"], error["kind"]) == (5, "manifest")
    assert "does not fit its type" in error["message"]


# Surroundings


def reembed(
    *arguments: object, python: tuple[str, ...] = (), **settings: Any
) -> tuple[int, str, str]:
    """The command in a process of its own."""
    done = subprocess.run(
        [sys.executable, *python, *REEMBED[1:], *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=280, **settings,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working directory is deleted."""
    monkeypatch.chdir(Path.cwd())  # come back to it
    folder = tmp_path / "gone"
    folder.mkdir()
    os.chdir(folder)
    folder.rmdir()


@pytest.mark.usefixtures("gone")
def test_a_deleted_working_directory(tmp_path: Path, database: Path, command: Command) -> None:
    manifest = write_manifest(tmp_path, f"chroma:{database}")
    assert command("plan", manifest, "--json").code == 0, (
        "nothing in it is relative to where one is"
    )
    for arguments, code, says in (
        (("init", "chroma:./db"), 2, "working directory is gone"),
        (("plan", "m.yaml"), 5, "no such file"),
    ):
        outcome = command(*arguments)
        assert outcome.code == code, outcome.err
        assert says in outcome.err and "bug" not in outcome.err
    assert command("status").code in (0, 2)


@follows_hint("Give the process more (see `ulimit -v`", elsewhere=True)
@pytest.mark.parametrize("megabytes", [300, 700, 1_200])
def test_a_limit_of_memory_is_named_and_not_the_disk(
    tmp_path: Path, database: Path, megabytes: int
) -> None:
    manifest = write_manifest(tmp_path, f"chroma:{database}")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))

    code, _, told = reembed("run", manifest, preexec_fn=limit)
    assert code == 5, told
    assert "memory" in told and "ulimit -v" in told
    assert "disk" not in told and "bug" not in told
    code, _, told = reembed("run", manifest)
    assert code == 0, told


def test_warnings_as_errors_are_no_errors_of_ours(tmp_path: Path, database: Path) -> None:
    manifest = write_manifest(tmp_path, f"chroma:{database}")
    environment = os.environ | {"PYTHONPATH": str(CASES)}
    for arguments in (("plan", manifest, "--json"), ("run", manifest, "--swap", "--json")):
        code, _, told = reembed(*arguments, python=("-W", "error"), env=environment)
        assert code == 0, told
        assert "Traceback" not in told
