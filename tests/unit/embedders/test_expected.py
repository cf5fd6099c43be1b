"""What a model needs is imported while something else is waited for."""

from __future__ import annotations

import importlib
import threading
from types import ModuleType

import pytest

from reembed.embedders import registry
from reembed.manifest import Model


def waited() -> None:
    for thread in threading.enumerate():
        if thread.name == "imports":
            thread.join(10)


@pytest.mark.parametrize(
    ("provider", "expected"), [("openai", True), ("sentence-transformers", False)]
)
def test_what_is_not_large_is_imported_at_once(
    provider: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[str]()
    load = importlib.import_module

    def seen(name: str) -> ModuleType:
        asked.append(name)
        return load(name)

    monkeypatch.setattr(importlib, "import_module", seen)
    registry.expect(Model(provider=provider, name="x"))
    waited()
    assert any(provider.replace("-", "_") in name for name in asked) is expected


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_is_broken_is_told_when_it_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> ModuleType:
        raise OSError(name)

    monkeypatch.setattr(importlib, "import_module", broken)
    registry.expect(Model(provider="openai", name="x"))
    waited()
    with pytest.raises(OSError):
        registry.open_provider(Model(provider="openai", name="x"))
