"""From a manifest's model to its embedder; providers are imported lazily, so that a missing
package is named."""

from __future__ import annotations

import contextlib
import importlib
import threading
from collections.abc import Callable
from pathlib import Path

from reembed.embedders.embedder import Embedder
from reembed.embedders.options import Options
from reembed.embedders.provider import Provider
from reembed.embedders.sending.retry import RetryPolicy
from reembed.embedders.shared import Shared
from reembed.manifest import Embed, Model
from reembed.manifest.adapters import missing_extra, provider_entry


def open_provider(model: Model, base_dir: Path | None = None) -> Provider:
    """The provider of `model`. Nothing is asked of a server yet.

    Args:
        base_dir: where relative paths and `python` modules are found; default: the working
            directory.

    Raises:
        ManifestError: a setting that the provider does not understand.
        MissingExtraError: its packages are not installed; names the extra.
        ProviderRefusedError: no key, or no model of that name where it is looked for.
    """
    entry = provider_entry(model.provider)
    try:
        module = importlib.import_module(entry.module)
    except ModuleNotFoundError as error:
        raise missing_extra(f"the provider {model.provider} needs", error, entry.extra) from error
    opener: Callable[[Model, Path], Provider] = module.open_provider
    return opener(model, base_dir or Path.cwd())


def expect(model: Model) -> None:
    """Begin to import what the provider of `model` needs, in a thread, where that is nothing large:
    the caller waits for a store and for the disk meanwhile. What goes wrong is told when it is
    opened."""
    entry = provider_entry(model.provider)

    def load() -> None:
        with contextlib.suppress(Exception):
            importlib.import_module(entry.module)

    if entry.extra is None:
        threading.Thread(target=load, name="imports").start()


def installed_models(provider: str) -> list[str]:
    """Names of the models that a provider has at hand; none of a provider that cannot tell, or that
    does not answer within a second."""
    module = importlib.import_module(provider_entry(provider).module)
    tell: Callable[[], list[str]] = getattr(module, "installed_models", list)
    return tell()


def open_embedder(
    model: Model,
    settings: Embed | None = None,
    base_dir: Path | None = None,
    retry: RetryPolicy | None = None,
    shared: Shared | None = None,
) -> Embedder:
    """The embedder of `model`, to be closed after use. Nothing is asked of a server yet.

    Args:
        settings: the manifest's `embed`: concurrency and rate limits.
        base_dir: as in `open_provider`.
        retry: how patient requests are; default: `model.options`, else 8 tries in 15 minutes.
        shared: see `Embedder`.

    Raises:
        as `open_provider`.
    """
    if retry is None:  # Chroma's options are its embedding function's own
        retry = RetryPolicy() if model.provider == "chroma" else RetryPolicy.from_options(
            Options(model)
        )  # fmt: skip
    provider = open_provider(model, base_dir)
    return Embedder(provider, model, settings, retry, shared)
