"""`import reembed` gives the public names, each of them, and imports nothing heavy for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

import reembed


def test_all_names_can_be_imported_and_are_sorted() -> None:
    assert reembed.__all__ == sorted(reembed.__all__)
    for name in reembed.__all__:
        assert getattr(reembed, name) is not None


def test_lazy_names_and_all_are_the_same() -> None:
    assert {*reembed._MODULES, "__version__"} == set(reembed.__all__)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = reembed.Nothing


def test_import_is_light() -> None:
    heavy = "{'chromadb', 'openai', 'numpy', 'pyarrow', 'pydantic'}"
    code = f"import reembed, sys; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
