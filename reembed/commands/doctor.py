"""`reembed doctor`: is this installation fit for work, and what does it reach?

Nothing is written but one empty file in the state directory, which is deleted again; a model is
asked for one vector, and only if a manifest names it.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any, Literal

from packaging.requirements import Requirement

import reembed
from reembed.embedders.registry import open_embedder
from reembed.errors import ReembedError
from reembed.manifest import Manifest
from reembed.manifest.urls import resolve_url
from reembed.stores.registry import open_source, open_store
from reembed.stores.store import Store

DISTRIBUTION = "reembed-pipeline"
LEAST_FREE = 1 << 30
"""Bytes; `plan` knows what a certain run needs."""
KEYS = {
    "OPENAI_API_KEY": "provider: openai",
    "CHROMA_API_KEY": "chroma+cloud://",
    "PGPASSWORD": "postgresql:// (or ~/.pgpass)",
    "OLLAMA_HOST": "provider: ollama, if it is not on this machine",
}

Status = Literal["ok", "absent", "warning", "failed"]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        status: ok; absent (not here, and not needed by everybody); warning; failed.
        hint: what to do about it.
    """

    name: str
    status: Status
    message: str
    hint: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """What `doctor` found.

    Attributes:
        exit_code: of the first check that failed; 0 if none did.
    """

    checks: list[Check]
    exit_code: int = 0

    def to_dict(self) -> dict[str, Any]:
        return {"checks": [asdict(check) for check in self.checks], "exit_code": self.exit_code}


def diagnose(subject: str | None = None) -> Diagnosis:
    """Look at the installation and, with a manifest or a store URL, at what it works with.

    Args:
        subject: a manifest's file, or a store URL.

    Raises:
        ManifestError: the manifest cannot be used.
    """
    is_url = subject is not None and re.match(r"[a-z+]+:", subject) and not Path(subject).exists()
    manifest = Manifest.load(subject) if subject and not is_url else None
    state = Path(manifest.state) if manifest else Path(".reembed").resolve()
    checks = [_python(), *_packages(), *_extras(), *_keys(), _clock(state), *_state(state)]
    exit_code = 5 if any(check.status == "failed" for check in checks) else 0
    asked: list[tuple[str, Callable[[], str]]] = []
    if manifest is not None:
        asked = [
            ("source store", lambda: _looked(open_source(manifest))),
            ("model", lambda: _embedded(manifest)),
        ]
        if manifest.target.url:
            asked.insert(1, ("target store", lambda: _looked(open_store(manifest.target_url))))
    elif subject is not None:
        asked = [("store", lambda: _looked(open_store(resolve_url(subject, Path.cwd()))))]
    for name, look in asked:
        try:
            checks.append(Check(name, "ok", look()))
        except ReembedError as error:
            checks.append(Check(name, "failed", error.message, error.hint))
            exit_code = exit_code or error.exit_code
    return Diagnosis(checks, exit_code)


def _python() -> Check:
    here = f"reembed {reembed.__version__}, Python {platform.python_version()}, {sys.platform}"
    if sys.platform not in ("linux", "darwin"):
        return Check("version", "failed", here, "Use Linux, macOS, or WSL on Windows.")
    return Check("version", "ok", here)


def _requirements(extra: str = "") -> Iterator[Requirement]:
    """What reembed asks for, or one of its extras."""
    for text in distribution(DISTRIBUTION).requires or ():
        requirement = Requirement(text)
        marker = requirement.marker
        plain = marker is None or marker.evaluate({"extra": ""})
        if plain != bool(extra) and (plain or (marker and marker.evaluate({"extra": extra}))):
            yield requirement


def _misfit(requirement: Requirement) -> str | None:
    """What is wrong with an installed package, None if nothing is."""
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        return f"{requirement.name} is not installed"
    if not requirement.specifier.contains(found, prereleases=True):
        return f"{requirement.name} {found} is not {requirement.specifier}"
    return None


def _packages() -> Iterator[Check]:
    wanted = [*_requirements()]
    problems = [problem for one in wanted if (problem := _misfit(one))]
    if problems:
        yield Check("packages", "failed", "; ".join(problems), f"pip install -U {DISTRIBUTION}")
    else:
        yield Check("packages", "ok", f"all {len(wanted)} in the versions that reembed is for")


def _extras() -> Iterator[Check]:
    for extra in sorted(distribution(DISTRIBUTION).metadata.get_all("Provides-Extra") or ()):
        problems = [problem for one in _requirements(extra) if (problem := _misfit(one))]
        if problems:
            hint = f"If you need it: pip install '{DISTRIBUTION}[{extra}]'"
            yield Check(f"extra {extra}", "absent", "; ".join(problems), hint)
        else:
            yield Check(f"extra {extra}", "ok", "installed")


def _keys() -> Iterator[Check]:
    """Which variables are set; never what they hold."""
    for name, use in KEYS.items():
        is_set = bool(os.environ.get(name))
        yield Check(name, "ok" if is_set else "absent", f"{'' if is_set else 'not '}set, for {use}")


def _clock(state: Path) -> Check:
    """Whether something that was written here lies in the future."""
    written = [path for path in (*state.glob("*/*/journal.jsonl"), Path(__file__)) if path.exists()]
    newest = max(path.stat().st_mtime for path in written)
    ahead = newest - time.time()
    now = time.strftime("%F %T %z")
    if ahead > 60:
        return Check(
            "clock", "warning", f"it is {now}, and a file here is {ahead / 60:.0f} minutes newer",
            "Set the clock (or wait): times in reports and leases are told by it.",
        )  # fmt: skip
    return Check("clock", "ok", now)


def _state(state: Path) -> Iterator[Check]:
    """Whether runs can be written where they are to lie, or would lie."""
    there = next(path for path in (state, *state.parents) if path.is_dir())
    try:
        with tempfile.NamedTemporaryFile(dir=there, prefix=".reembed-doctor-"):
            free = shutil.disk_usage(there).free
    except OSError as error:
        hint = "Give it to this user, or let `state` in the manifest name another directory."
        yield Check("state directory", "failed", f"{there}: {error.strerror}", hint)
        return
    yield Check("state directory", "ok", f"{state} can be written")
    left = f"{free / (1 << 30):,.1f} GB free in {there}"
    few = "Free some space, or let `state` name another disk; `plan` says what a run needs."
    yield Check("disk", "warning" if free < LEAST_FREE else "ok", left,
                few if free < LEAST_FREE else "")  # fmt: skip


def _looked(store: Store) -> str:
    try:
        names = store.catalog.collections()
    finally:
        store.close()
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return f"{len(names)} collections" + (f": {shown}" if names else "")


def _embedded(manifest: Manifest) -> str:
    model = manifest.new_model
    if model is None:
        return "none is needed: vectors are moved as they are (model: keep)"
    with open_embedder(model, manifest.embed, manifest.base_dir) as embedder:
        embedder.check_reachable()
        return f"{model.provider} {model.name} answers with {embedder.dimensions} dimensions"
