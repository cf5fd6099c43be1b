"""Every command that is printed as the next one can be typed as it stands, and leads on."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import get_args

import pytest

from reembed.errors import UsageError
from reembed.run.history import State
from reembed.run.steps import next_steps
from tests.support.commands import Command
from tests.support.manifests import migration, write_manifest


@pytest.mark.parametrize("state", get_args(State))
def test_every_state_but_the_last_has_a_next_command(state: State) -> None:
    steps = next_steps(state, Path("nightly.yaml"))
    assert bool(steps) == (state not in ("cleaned", "name lost"))
    assert all(shlex.split(step.command)[2] == "nightly.yaml" for step in steps)


def test_a_path_is_quoted_and_seen_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    inside = next_steps("verified", tmp_path / "my jobs" / "a.yaml")[0].command
    assert inside == "reembed swap 'my jobs/a.yaml' --yes"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    outside = next_steps("verified", tmp_path / "a.yaml")[0].command
    assert outside == f"reembed swap {tmp_path / 'a.yaml'} --yes"


def test_doing_what_is_printed_goes_there_and_back(
    command: Command, tmp_path: Path, database: Path
) -> None:
    """From the first run to clean by printed commands alone."""
    path = write_manifest(tmp_path, f"chroma:{database}", swap__keep_old="0d")
    steps = command("run", path, "--until", "load", "--json").json["steps"]
    walk = [("run", "verified"), ("swap", "swapped"), ("rollback", "rolled back"),
            ("swap", "swapped"), ("sweep", "swapped"), ("clean", "cleaned")]  # fmt: skip
    for verb, state in walk:
        typed = next(step for step in steps if shlex.split(step["command"])[1] == verb)["command"]
        done = command(*shlex.split(typed)[1:])
        assert done.code == 0, done.err
        steps = migration(path).status().to_dict()["steps"]
        assert migration(path).status().state == state
        assert all(step["command"] in done.out for step in steps), "the text says the same"
    assert steps == []


def test_a_command_that_comes_too_early_names_the_one_that_does_not(
    command: Command, tmp_path: Path, database: Path
) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}")
    migration(path).run()
    with pytest.raises(UsageError, match="is verified") as refused:
        migration(path).rollback()
    typed = refused.value.hint.split("`")[1]
    assert command(*shlex.split(typed)[1:]).code == 0
    assert migration(path).rollback().done


def test_clean_in_the_middle_of_a_move_names_the_command_that_finishes_it(
    command: Command, tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reembed.cutover import swap

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    path = write_manifest(tmp_path, f"chroma:{database}", swap__keep_old="0d")
    migration(path).run()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(swap, "sweep", die)  # the name has moved, and what follows has not
        migration(path).swap()
    with pytest.raises(UsageError, match="begun and not finished") as refused:
        migration(path).clean()
    typed = refused.value.hint.split("`")[1]
    assert command(*shlex.split(typed)[1:]).code == 0
    assert migration(path).clean().done
