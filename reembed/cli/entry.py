"""Run the command line: every error becomes an exit code, and one form of telling it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

import typer

from reembed.cli.app import app
from reembed.cli.logs import LOG
from reembed.cli.looks import COMPLETING
from reembed.cli.output import say_json
from reembed.errors import (
    InterruptedRunError,
    OutOfMemoryError,
    OutputError,
    ReembedError,
    UsageError,
)
from reembed.progress.tracing import exported, span
from reembed.redaction.terminal import clean_streams
from reembed.run.disk import out_of_memory

COMMAND_LINE_ERROR: Any = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException"
)
"""Click's base of all mistakes on the command line. Newer versions of typer bring a Click of their
own, so importing the name from click would miss it."""


def main() -> NoReturn:
    """Run the command line and exit with the code that `reembed.errors` documents."""
    if COMPLETING in os.environ:
        from typer.completion import completion_init  # type: ignore[attr-defined]

        completion_init()
    signal.signal(signal.SIGTERM, _interrupt)
    with clean_streams(), exported(lambda told: print(told, file=sys.stderr)):
        command = next(iter(sys.argv[1:]), "")
        with span(command if command.isalpha() else "help") as attach:
            code = _exit_code()
            attach({"exit_code": code})
        LOG.close()
    sys.exit(code)


def _exit_code() -> int:
    try:
        code = app(standalone_mode=False)
        if code == InterruptedRunError.exit_code:  # typer takes KeyboardInterrupt for itself
            code = _fail(_interrupted())
    except ReembedError as error:
        code = _fail(error)
    except typer.Abort:
        code = _fail(_interrupted())
    except COMMAND_LINE_ERROR as error:
        code = _fail(_mistyped(error))
    except KeyboardInterrupt:
        code = _fail(_interrupted())
    except MemoryError as error:
        code = _fail(OutOfMemoryError(str(error) or "the step needs more than there is"))
    except Exception as error:
        if (known := out_of_memory(error) or _without_folder(error)) is not None:
            return _fail(known)
        LOG.line("error", "bug", traceback.format_exc().rstrip())
        code = _fail(
            ReembedError(
                f"{type(error).__name__}: {error}",
                "This is a bug in reembed. Please report it with the lines above; `reembed status` "
                "says where the migration stands.",
            )
        )
    return code or 0


BEGIN = "Begin with `reembed init`, which asks, or with `reembed try URL --model PROVIDER:NAME`."


def _mistyped(error: Any) -> UsageError:
    """What is wrong on the command line, what a missing word would say, and whose help has more."""
    context, parameter = getattr(error, "ctx", None), getattr(error, "param", None)
    message = error.format_message()
    if not message:  # no word at all: the help was shown
        return UsageError("no command is given", BEGIN)
    missing = type(error).__name__ == "MissingParameter"
    if missing and (about := getattr(parameter, "help", None)):
        message = f"{message.rstrip('.')}: {about}"
    path = context.command_path.split(context.find_root().info_name)[-1] if context else ""
    return UsageError(message, f"See `reembed{path} --help`.")


def _without_folder(error: Exception) -> ReembedError | None:
    """The error of a working directory that somebody has deleted."""
    try:
        Path.cwd()
    except OSError:
        if isinstance(error, FileNotFoundError):
            return UsageError(
                "the working directory is gone: somebody deleted it",
                "Change to another one (`cd`) and run the same command again.",
            )
    return None


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _interrupted() -> InterruptedRunError:
    return InterruptedRunError("interrupted", "Run the same command again to go on where it was.")


def _fail(error: ReembedError) -> int:
    told = False
    if LOG.manifest is not None:
        from reembed.run.steps import with_manifest

        error.hint = with_manifest(error.hint, LOG.manifest)
    if "--json" in sys.argv[1:] and not isinstance(error, OutputError):
        with contextlib.suppress(OutputError):
            say_json({"error": error.to_dict()})
            told = True
    LOG.error(error, told=told)
    return error.exit_code
