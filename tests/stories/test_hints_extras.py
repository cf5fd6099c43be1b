"""A package that is not installed is installed as is said, and the same command goes on."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import Command
from tests.support.following import follows_hint, installs
from tests.support.manifests import write_manifest


@follows_hint("pip install 'reembed-pipeline")
@pytest.mark.parametrize(
    ("module", "distribution", "ours", "words", "changes"),
    [
        ("prometheus_client", "prometheus-client", "", "watch m.yaml --metrics m.prom", {}),
        ("fastembed", "fastembed", "reembed.embedders.providers.fastembed", "plan m.yaml",
         {"model": {"provider": "fastembed", "name": "BAAI/bge-small-en-v1.5",
                    "options": {"offline": True}}}),
    ],
)  # fmt: skip
def test_what_is_missing_is_named_with_what_brings_it(
    module: str, distribution: str, ours: str, words: str, changes: dict[str, Any],
    tmp_path: Path, database: Path, command: Command, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FASTEMBED_CACHE_PATH", str(tmp_path))
    write_manifest(tmp_path, "chroma:./db", **changes)
    with monkeypatch.context() as absent:
        for name in [one for one in sys.modules if one.partition(".")[0] == module]:
            absent.delitem(sys.modules, name)
        absent.setitem(sys.modules, module, None)
        if ours:
            absent.delitem(sys.modules, ours, raising=False)
        refused = command(*words.split(), "--json")
    (hint,) = {*re.findall(r"pip install 'reembed-pipeline\S+'", refused.out + refused.err)}
    assert installs(hint, distribution)
    done = command(*words.split(), "--json")
    assert "pip install" not in done.out + done.err
    assert done.code == 0 or "cannot be loaded" in done.out, "no hub is in reach of this test"
