"""The newest run of a manifest's name: the one that a command goes on with."""

from __future__ import annotations

from collections.abc import Callable

from reembed.manifest import Manifest
from reembed.report.results import no_run
from reembed.run.directory import RunDir


def current_run(manifest: Manifest, was_swapped: Callable[[RunDir], bool]) -> RunDir | None:
    """The newest run if it is this manifest's, None where a new one is to begin.

    Args:
        was_swapped: whether a run that is cleaned had been swapped: then there is nothing to begin.

    Raises:
        ManifestError: an unfinished run belongs to another manifest of this name.
    """
    run = RunDir.latest(manifest.state_dir)
    if run is not None and run.history.state == "cleaned":
        return run if was_swapped(run) and run.has_identity(manifest.identity()) else None
    return None if run is None else _checked(run, manifest)


def required_run(manifest: Manifest) -> RunDir:
    """The newest run.

    Raises:
        UsageError: there is none.
        ManifestError: it belongs to another manifest of this name.
    """
    run = RunDir.latest(manifest.state_dir)
    if run is None:
        raise no_run(manifest)
    return _checked(run, manifest)


def _checked(run: RunDir, manifest: Manifest) -> RunDir:
    live = None if manifest.is_group else manifest.live
    run.check_identity(manifest.identity(), live, manifest.path)
    return run
