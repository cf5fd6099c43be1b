"""Whether this process is the program `reembed`, and not an application that imports it."""

from __future__ import annotations

_claimed = False


def claim_process() -> None:
    """Say that it is: nothing else in it has anything open."""
    global _claimed
    _claimed = True


def is_program() -> bool:
    """Whether `claim_process` was called."""
    return _claimed
