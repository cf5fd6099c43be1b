"""OpenTelemetry spans of commands and stages, for who has set OpenTelemetry up.

The command line sends them where the variables OTEL_EXPORTER_OTLP_... say (extra `telemetry`); in
an application they belong to its own traces. Without either there are none.
A span holds names, counts and kinds of errors, never a text, and never an error's words.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
PATIENCE = 5_000
"""Milliseconds that a command waits at its end for spans to be taken."""

Attribute = str | int | float | bool
Attach = Callable[[dict[str, Attribute]], None]
"""Adds attributes to a span."""


def _nothing(attributes: dict[str, Attribute]) -> None:
    """There is no span."""


@contextlib.contextmanager
def span(name: str, /, **attributes: Attribute) -> Iterator[Attach]:
    """A span around the block, a child of the one that is open.

    Args:
        name: gets `reembed ` before it.
        attributes: get `reembed.` before them.
    """
    if "opentelemetry.sdk.trace" not in sys.modules:  # nobody would take it
        yield _nothing
        return
    from opentelemetry import trace

    tracer = trace.get_tracer("reembed")
    with tracer.start_as_current_span(
        f"reembed {name}", attributes=_named(attributes), record_exception=False,
        set_status_on_exception=False,
    ) as one:  # fmt: skip
        try:
            yield lambda more: one.set_attributes(_named(more))
        except BaseException as error:
            kind = getattr(error, "kind", type(error).__name__)
            one.set_attribute("error.type", kind)
            one.set_status(trace.StatusCode.ERROR, kind)
            raise


def traced(name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A span around every call of a function whose first argument is a session."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def inner(*args: P.args, **kwargs: P.kwargs) -> R:
            session: Any = args[0]
            with span(name, name=session.manifest.name, run=session.run.run_id):
                return function(*args, **kwargs)

        return inner

    return decorate


def _named(attributes: dict[str, Attribute]) -> dict[str, Attribute]:
    return {f"reembed.{key}": value for key, value in attributes.items()}


def wanted() -> bool:
    """Whether the environment asks for spans."""
    off = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    return not off and any(os.environ.get(name) for name in ENDPOINTS)


@contextlib.contextmanager
def exported(note: Callable[[str], None]) -> Iterator[None]:
    """Send the spans of the block where the environment says, if it does. That nobody takes them is
    told, and stops nothing.

    Args:
        note: told why no spans are sent.
    """
    if not wanted():
        yield
        return
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        note(f"no spans are sent: {error.name} is missing (pip install "
             "'reembed-pipeline[telemetry]')")  # fmt: skip
        yield
        return
    service = os.environ.get("OTEL_SERVICE_NAME") or "reembed"
    provider = TracerProvider(
        resource=Resource.create({"service.name": service}), shutdown_on_exit=False
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(timeout=PATIENCE / 1000)))
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        provider.force_flush(PATIENCE)
        provider.shutdown()
