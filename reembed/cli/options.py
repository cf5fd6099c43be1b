"""Options that every command has: how it is logged."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from reembed.cli.helping import Help, one_line, panel_of, without_types_of_flags
from reembed.cli.logs import LOG
from reembed.cli.showing import shown
from reembed.errors import UsageError

PANEL = "Log"


class LogFormat(StrEnum):
    """How a line of the log is written."""

    text = "text"
    json = "json"


def _log_options(
    log_format: Annotated[
        LogFormat,
        typer.Option("--log-format", help="progress and logs as text or JSON lines",
                     rich_help_panel=PANEL),
    ] = LogFormat.text,
    log_file: Annotated[
        Path | None,
        typer.Option("--log-file", metavar="FILE", help="append to this file all that -v says",
                     rich_help_panel=PANEL),
    ] = None,
    verbose: Annotated[
        bool,
        typer.Option("-v", "--verbose", help="say each stage, wait and request",
                     rich_help_panel=PANEL),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("-q", "--quiet", help="say only errors", rich_help_panel=PANEL)
    ] = False,
) -> None:  # fmt: skip
    """Set the log up as the options say."""
    if verbose and quiet:
        raise UsageError("-v and -q cannot be used together", "Choose one.")
    LOG.as_json = log_format is LogFormat.json
    LOG.verbose, LOG.quiet = verbose, quiet
    if log_file is not None:
        LOG.write_to(log_file)
    if verbose or log_file is not None or LOG.as_json:
        LOG.listen()


_OPTIONS = inspect.signature(_log_options, eval_str=True).parameters


def with_log_options(command: Callable[..., Any], name: str) -> Callable[..., Any]:
    """`command` with the options besides its own, as a stage that lasts until it ends."""

    @functools.wraps(command)
    def logged(**options: Any) -> Any:
        LOG.command, LOG.manifest = name, None
        _log_options(**{key: options.pop(key) for key in _OPTIONS})
        with shown().stage(name):
            return command(**options)

    own = inspect.signature(command, eval_str=True).parameters
    parameters = {**own, **_OPTIONS}
    without_types_of_flags(parameters)
    vars(logged)["__signature__"] = inspect.Signature([*parameters.values()])
    logged.__annotations__ = {key: one.annotation for key, one in parameters.items()}
    return logged


class App(typer.Typer):
    """A Typer whose commands are logged, and stand in the help under what they are for."""

    def command(self, name: str | None = None, **options: Any) -> Callable[..., Any]:
        def take(command: Callable[..., Any]) -> Callable[..., Any]:
            called = name or command.__name__
            about: dict[str, Any] = {
                "help": one_line(command),
                "rich_help_panel": panel_of(called),
                "cls": Help,
            }
            register = typer.Typer.command(self, called, **about, **options)
            register(with_log_options(command, called))
            return command

        return take
