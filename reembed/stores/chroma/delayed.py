"""`import chromadb` put off until somebody needs it, in a process that is reembed's own.

Chroma's Python package takes 0.7 seconds to import. What opens a local folder is the library below
it, `chromadb_rust_bindings`, which takes 0.02 (`library.py`). But that imports the package to raise
an error. So a module stands for the package, and leads to the real one, which is imported as
soon as anything of it is asked for: everybody's `import chromadb` works as ever. Its errors, which
need nothing else, are imported at once.

Nothing is put off in an application's process, nor with a release that was not tried.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import re
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

KNOWN = frozenset({"1.5.9"})
"""Releases of chromadb whose library was tried without its package."""
_PACKAGE, _ERRORS = "chromadb", "chromadb.errors"
_VERSION = re.compile(r'^__version__ = "([^"]+)"', re.MULTILINE)
_HEAD = 2_000


class _Delayed(ModuleType):
    """Stands for the package, and has all that it has."""

    def __init__(self, spec: ModuleSpec) -> None:
        super().__init__(_PACKAGE)
        self.__spec__ = spec
        self.__path__ = spec.submodule_search_locations or []

    def __getattr__(self, name: str) -> Any:
        return getattr(package(), name)


class _Finder(MetaPathFinder):
    """Imports the package before a part of it, as Python does where nothing stands for it."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not name.startswith(f"{_PACKAGE}.") or not is_delayed():
            return None
        package()
        there = sys.modules.get(name)  # the package has imported it, and once is enough
        if there is None:
            return None
        found = ModuleSpec(name, _There(there))
        there.__spec__ = found  # Python takes the module's own, and loads by that
        return found


class _There(Loader):
    """Loads what is loaded."""

    def __init__(self, module: ModuleType) -> None:
        self._module, self._spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec


_finder = _Finder()


def delay() -> None:
    """Put the import off, where that may be done, in a process of our own."""
    if _PACKAGE in sys.modules:
        return
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None or _version(Path(spec.origin)) not in KNOWN:
        return
    found = importlib.util.spec_from_file_location(
        _ERRORS, Path(spec.origin).with_name("errors.py")
    )
    if found is None or found.loader is None:
        return
    errors = importlib.util.module_from_spec(found)
    found.loader.exec_module(errors)
    sys.modules[_ERRORS] = errors
    sys.modules[_PACKAGE] = _Delayed(spec)
    sys.meta_path.insert(0, _finder)


def is_delayed() -> bool:
    """Whether nobody has needed the package so far."""
    return isinstance(sys.modules.get(_PACKAGE), _Delayed)


def package() -> ModuleType:
    """The real package."""
    if is_delayed():
        with contextlib.suppress(KeyError):  # another thread was faster
            del sys.modules[_PACKAGE]
    real = importlib.import_module(_PACKAGE)
    with contextlib.suppress(ValueError):
        sys.meta_path.remove(_finder)
    if _ERRORS in sys.modules:
        real.__dict__.setdefault("errors", sys.modules[_ERRORS])
    return real


def _version(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        found = _VERSION.search(file.read(_HEAD))
    return found[1] if found else ""
