"""The program `reembed`, and `python -m reembed` for where the script is not on PATH."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn, cast

INTERRUPTED = 130
"""As `reembed.errors` has it, which is imported later: a Ctrl-C before has its one line, too."""
ARENAS = 2
M_ARENA_MAX = -8
"""The number of that setting in glibc's malloc.h."""
COLLECT_AFTER = 50_000
"""New objects after which Python looks for garbage. Its own 700 make a tenth of a short command's
time, since libraries are imported by the commands that need them, of a million objects."""


def main() -> NoReturn:
    """Run the command line, where it can run at all."""
    _fill_streams()
    begin_process()
    try:
        begin = _command_line()
    except KeyboardInterrupt:  # nothing has begun
        print("error: interrupted\n  Run the same command again.", file=sys.stderr)
        sys.exit(INTERRUPTED)
    end_imports()
    begin()


def _command_line() -> Callable[[], NoReturn]:
    from reembed.errors import PreflightError, refuse_windows

    try:
        refuse_windows()
    except PreflightError as error:  # before the imports, which end in a traceback there
        if "--json" in sys.argv[1:]:
            print(json.dumps({"error": error.to_dict()}))
        print(f"error: {error.message}\n{error.hint}", file=sys.stderr)
        sys.exit(error.exit_code)
    from reembed.cli import main as begin

    return begin


def begin_process() -> None:
    """What is done before libraries are imported, in a process that is the program's own."""
    gc.disable()  # of what is imported nothing is ever garbage
    bound_memory()
    # httpx goes without its own command line, whose libraries take as long to import as its others.
    sys.modules.setdefault("httpx._main", cast(Any, None))
    from reembed.run.program import claim_process

    claim_process()


def end_imports() -> None:
    """What is done after that, before anything else begins."""
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)
    gc.enable()


def bound_memory() -> None:
    """Let threads share two heaps, and Arrow use them as well, before it is imported.

    glibc gives each thread a heap of its own, up to eight for a processor, which keeps what the
    thread has freed; the threads of stores and models come and go with every collection, and of
    many collections each would leave a fifth of a megabyte behind. Arrow's own allocator keeps what
    was freed, too, beside that: a third of a run's memory. What the user has set stays.
    """
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    if "MALLOC_ARENA_MAX" in os.environ or not sys.platform.startswith("linux"):
        return
    import ctypes

    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, ARENAS)


def _fill_streams() -> None:
    """Let a stream that was closed before the program began lead nowhere. Else the next file that
    is opened would take its number, and what is printed would be written into it."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            mode = "w" if number else "r"
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


if __name__ == "__main__":
    main()
