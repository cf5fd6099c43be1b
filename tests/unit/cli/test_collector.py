"""Imports are not looked through for garbage, all else is; and memory comes from one allocator."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys

import pytest

from reembed.__main__ import COLLECT_AFTER
from reembed.errors import MissingExtraError
from reembed.manifest.adapters import store_entry
from reembed.stores import registry

NAME = "ARROW_DEFAULT_MEMORY_POOL"
PROGRAM = """
import atexit, gc, json, sys
atexit.register(lambda: print(json.dumps([gc.isenabled(), gc.get_threshold()[0]])))
from reembed.__main__ import main
sys.argv = ["reembed", "--version"]
main()
"""

POOL = """
import os
from reembed.__main__ import bound_memory
bound_memory()
import pyarrow
print(pyarrow.default_memory_pool().backend_name)
"""


@pytest.mark.parametrize(("given", "used"), [({}, "system"), ({NAME: "mimalloc"}, "mimalloc")])
def test_arrow_shares_the_heap_unless_somebody_said_otherwise(
    given: dict[str, str], used: str
) -> None:
    kept = {key: value for key, value in os.environ.items() if key != NAME}
    done = subprocess.run([sys.executable, "-c", POOL], env=kept | given, capture_output=True,
                          text=True, check=True, timeout=60)  # fmt: skip
    assert done.stdout.strip() == used


def test_the_program_collects_garbage_once_it_has_begun() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=60
    )
    assert json.loads(done.stdout.splitlines()[-1]) == [True, COLLECT_AFTER]


@pytest.mark.parametrize("enabled", [True, False])
def test_opening_a_store_leaves_the_collector_as_it_was(enabled: bool) -> None:
    entry = store_entry("jsonl")
    assert entry is not None
    before = gc.isenabled()
    try:
        gc.enable() if enabled else gc.disable()
        registry._adapter(entry, entry.module)
        assert gc.isenabled() is enabled
        with pytest.raises(MissingExtraError):
            registry._adapter(entry, "reembed.no_such_module")
        assert gc.isenabled() is enabled
    finally:
        gc.enable() if before else gc.disable()
