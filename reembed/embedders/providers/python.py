"""A function of the user's: `module:callable`, `callable(texts: list[str]) -> (n, d) float32`.

This and the hooks are the only places where a manifest makes reembed run someone's code.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reembed.embedders.options import Options
from reembed.embedders.provider import (
    Answer,
    Counts,
    Limits,
    ModelVersion,
    Price,
)
from reembed.embedders.providers.foreign import meaning
from reembed.embedders.providers.model_files import find, sha256
from reembed.embedders.providers.tokens import TextTokenizer, estimate_tokens
from reembed.embedders.redact import redact
from reembed.errors import ManifestError, ProviderRefusedError
from reembed.manifest import Model


class PythonProvider:
    """See the module. `options`: `batch_items` (texts in a call, 64), `tokenizer` (path of the
    model's tokenizer.json, for exact counts).

    What the function raises is read as `foreign.meaning` says.
    """

    queries_alike = True

    def __init__(self, model: Model, base_dir: Path) -> None:
        options = Options(model)
        items = options.take_positive("batch_items", int, 64)
        tokenizer = options.take("tokenizer", str, "")
        options.finish()
        self._tokenizer = (
            TextTokenizer(find(tokenizer, base_dir, "model.options.tokenizer"))
            if tokenizer
            else None
        )
        self._name = model.name
        self._function = _find(model.name, base_dir)
        self.limits = Limits(batch_items=items)
        self.price: Price | None = None
        self.exact_tokens = self._tokenizer is not None
        self.normalizes = False

    def count_tokens(self, texts: Sequence[str]) -> Counts:
        return self._tokenizer.count(texts) if self._tokenizer else estimate_tokens(texts)

    def embed(self, texts: Sequence[str], *, query: bool = False) -> Answer:
        try:
            result = self._function(list(texts))
        except (Exception, SystemExit) as error:  # the user's code may raise anything
            raise meaning(error, self._name, own=True) from None
        try:
            vectors = np.asarray(result, np.float32)
        except (TypeError, ValueError) as error:
            raise self._wrong(f"{type(result).__name__}: {error}", texts) from None
        if vectors.ndim != 2 or len(vectors) != len(texts):
            raise self._wrong(f"shape {vectors.shape}", texts)
        return Answer(vectors)

    def _wrong(self, what: str, texts: Sequence[str]) -> ProviderRefusedError:
        return ProviderRefusedError(
            f"{self._name} returned {what} for {len(texts)} texts",
            f"It must return a float32 array of shape ({len(texts)}, d), one row for each text.",
        )

    def version(self) -> ModelVersion:
        """The hash of the module's source, where it has one, is told as a detail: somebody may
        mend the function in the middle of a run. What it gives for the probes says whether it is
        the same model."""
        try:
            source = inspect.getsourcefile(inspect.unwrap(self._function))
        except TypeError:  # an instance with __call__, a built-in
            source = getattr(sys.modules[self._name.partition(":")[0]], "__file__", None)
        if not source or not Path(source).is_file():
            return ModelVersion()
        return ModelVersion(details={"source": sha256(Path(source))[:16]})

    def warnings(self) -> list[str]:
        return []

    def close(self) -> None: ...


def _find(name: str, base_dir: Path) -> Callable[[list[str]], Any]:
    module_name, _, path = name.partition(":")
    if not module_name or not path:
        raise ManifestError(
            f"model.name: {name!r} does not name a function", "Write module:callable."
        )
    folder = str(base_dir.resolve())
    sys.path.insert(0, folder)
    try:
        target: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        if module_name == missing or module_name.startswith(f"{missing}."):
            raise ManifestError(
                f"model.name: there is no module {missing!r} in {folder} or among the installed",
                "It is looked for in the manifest's folder first.",
            ) from None
        raise ManifestError(
            f"model.name: {module_name} needs the module {missing!r}",
            "Install it into the environment that reembed runs in, and run the same command again.",
        ) from error
    except (Exception, SystemExit) as error:  # the user's module may raise anything
        raise ManifestError(
            redact(f"model.name: importing {module_name} raised {type(error).__name__}: {error}"),
            f"`python -c 'import {module_name}'` in {folder} shows where. Mend it, and run the "
            "same command again.",
        ) from error
    finally:
        sys.path.remove(folder)
    for part in path.split("."):
        if not hasattr(target, part):
            names = [key for key, value in vars(target).items()
                     if callable(value) and not key.startswith("_")]  # fmt: skip
            raise ManifestError(
                f"model.name: {module_name} has no {path!r}", f"It has: {', '.join(names[:20])}."
            )
        target = getattr(target, part)
    if not callable(target):
        raise ManifestError(f"model.name: {name} is not a function, it is {type(target).__name__}")
    return target  # type: ignore[no-any-return]


def open_provider(model: Model, base_dir: Path) -> PythonProvider:
    """See `registry.open_provider`."""
    return PythonProvider(model, base_dir)
