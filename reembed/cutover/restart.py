"""`run --restart`: give up a run whose manifest has changed, so that another one begins.

What was paid for is kept: the vectors lie in the cache, by text, for the run that follows.
"""

from __future__ import annotations

from collections.abc import Callable

from reembed.errors import UsageError
from reembed.manifest import Manifest
from reembed.run.directory import RunDir
from reembed.run.events.event import Action
from reembed.run.history import State
from reembed.run.steps import next_steps, shown_path

MOVED: tuple[State, ...] = ("swapping", "swapped", "rolling back", "cleaning")
"""States in which the live name is, or may be, at the run's own collection."""

Standing = tuple[State, Action | None]
"""Where a run stands, and which way its live names were moved last."""


def where_it_stands(run: RunDir) -> Standing:
    """Of the run of one collection."""
    return run.history.state, run.history.last_move


def run_to_give_up(manifest: Manifest, stands: Callable[[RunDir], Standing]) -> Manifest | None:
    """The manifest that the newest run of this name was begun with, by which `clean` gives it up;
    None where there is none, or nothing is left of it.

    Raises:
        UsageError: the run has moved a live name, or moves several collections where `manifest`
            names one, or the other way round.
    """
    run = RunDir.latest(manifest.state_dir)
    if run is None:
        return None
    state, last_move = stands(run)
    if state == "cleaned" and last_move != "swap":
        return None
    kept = run.kept_manifest
    begun_with = Manifest.load(kept)
    if state in MOVED or last_move == "swap":
        path = shown_path(kept)
        ways = {
            "cleaned": "It is done: to migrate again, give the manifest another `name`.",
            "swapped": f"`reembed rollback {path} --yes` goes back first; or give the manifest "
            "another `name` to migrate on from what is live now.",
        }
        steps = next_steps(state, kept)
        raise UsageError(
            f"{manifest.name}: run {run.run_id} is {state}, so it cannot be given up",
            ways.get(state) or f"`{steps[0].command}` to {steps[0].does}.",
        )
    if begun_with.is_group != manifest.is_group:
        was = "several collections" if begun_with.is_group else "one collection"
        raise UsageError(
            f"{manifest.name}: run {run.run_id} was begun for {was}",
            f"`reembed clean {shown_path(kept)} --yes` gives it up; then run this command again.",
        )
    return begun_with
