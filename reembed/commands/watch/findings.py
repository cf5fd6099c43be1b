"""What a look finds: one finding a check and collection, fit to be told to anybody."""

from __future__ import annotations

import sys
import traceback
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from reembed.errors import GateError, ReembedError
from reembed.redaction import redacted

Check = Literal[
    "reachable", "gone", "empty", "drop", "drop_by", "dimension", "metric", "identity",
    "model", "model_reachable", "canary", "latency", "application", "backup", "drill", "run",
    "mend", "notify", "metrics", "clock", "memory", "watch",
]  # fmt: skip
CHECKS: tuple[Check, ...] = get_args(Check)
Status = Literal["ok", "warning", "alert"]

FOUND = GateError.exit_code
"""The exit code of an alert that is about what was looked at."""


@dataclass(frozen=True)
class Finding:
    """What one check found of one collection.

    Attributes:
        collection: its live name; empty where it is about the store, a model or the watch itself.
        message: for whoever runs the watch; without secrets.
        sent: what may be sent anywhere, without texts and metadata values; default: the message.
            Others' words may hold such, so of an error only its kind is sent.
        detail: what may be shown here only, such as which users lost their records.
        exit_code: of an alert.
        subject: what tells two findings of one check apart, such as the role of a model.
    """

    check: Check
    status: Status
    collection: str
    message: str
    hint: str = ""
    detail: str = ""
    exit_code: int = FOUND
    subject: str = ""
    sent: str = ""

    @property
    def key(self) -> str:
        """What makes it the same one in the next cycle."""
        return "/".join(part for part in (self.check, self.collection, self.subject) if part)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def alert(check: Check, collection: str, message: str, hint: str = "", **more: Any) -> Finding:
    """An alert, without secrets."""
    return Finding(check, "alert", collection, redacted(message), redacted(hint), **more)


def warning(check: Check, collection: str, message: str, hint: str = "", **more: Any) -> Finding:
    """Worth telling; nothing fails for it."""
    return Finding(check, "warning", collection, redacted(message), redacted(hint), **more)


def fine(check: Check, collection: str, message: str, **more: Any) -> Finding:
    """Looked at, and as it should be."""
    return Finding(check, "ok", collection, redacted(message), **more)


def of_error(check: Check, collection: str, error: ReembedError, **more: Any) -> Finding:
    """The alert of an error, with its exit code."""
    sent = f"{check.replace('_', ' ')}: {error.kind}. The words are where the watch runs."
    return alert(
        check, collection, error.message, error.hint, exit_code=error.exit_code, sent=sent, **more
    )


def of_bug(check: Check, collection: str, error: Exception, **more: Any) -> Finding:
    """The alert of an error that is a bug of reembed's, whose lines go to stderr."""
    traceback.print_exception(error, file=sys.stderr)
    told = f"a look failed: {type(error).__name__}"
    return alert(
        check, collection, f"{told}: {error}",
        "This is a bug in reembed. Please report it with the lines on stderr.",
        exit_code=ReembedError.exit_code, sent=told, **more,
    )  # fmt: skip


def exit_code(findings: list[Finding]) -> int:
    """4 if an alert is about what was looked at, else the code of the first alert, else 0."""
    codes = [finding.exit_code for finding in findings if finding.status == "alert"]
    return FOUND if FOUND in codes else next(iter(codes), 0)
