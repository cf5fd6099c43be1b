"""The error tree. Every error reembed raises on purpose is one of these.

An error says what happened, to which record or setting, and what to do next (`hint`). Each class
carries the exit code that the command line ends with, so that scripts can tell the causes apart.
What it says holds no secret that the process has read, whoever prints it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from reembed.redaction import redacted


class ReembedError(Exception):
    """Base of all errors. Exit code 1 means a bug in reembed; every subclass narrows it.

    Args:
        message: what happened, and to what.
        hint: what to do next; shown on its own line.
    """

    exit_code: ClassVar[int] = 1
    kind: ClassVar[str] = "bug"

    def __init__(self, message: str, hint: str = "") -> None:
        self.message = redacted(message)
        self.hint = redacted(hint)
        super().__init__(self.message)

    def to_dict(self) -> dict[str, Any]:
        """The `--json` form: `{"exit_code", "kind", "message", "hint"}`."""
        return {
            "exit_code": self.exit_code,
            "kind": self.kind,
            "message": self.message,
            "hint": self.hint,
        }


class UsageError(ReembedError):
    """The command was called in a way it cannot act on."""

    exit_code = 2
    kind = "usage"


class GateError(ReembedError):
    """A gate failed or is inconclusive, so the swap is refused."""

    exit_code = 4
    kind = "gate"


class RefusedError(ReembedError):
    """It cannot begin or go on as it stands: the input, a setting or a limit of the user's is in
    the way. The live name was not moved, and what was done is kept."""

    exit_code = 5
    kind = "refused"


class ManifestError(RefusedError):
    """The manifest cannot be read, is invalid, or holds a secret."""

    kind = "manifest"


class PreflightError(RefusedError):
    """A check before the work found a reason not to start or go on."""

    kind = "preflight"


class CollectionNotFoundError(PreflightError):
    """A collection named by the manifest is not in the store."""

    kind = "collection-not-found"


class CollectionGoneError(CollectionNotFoundError):
    """A collection that the command had found is not in the store any more."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(
            message,
            hint
            or "It was deleted, or made anew, while this command was at work. Run the command "
            "again: it looks at what the name leads to now.",
        )


class MissingExtraError(PreflightError):
    """An optional dependency is needed and not installed."""

    kind = "missing-extra"


class TakenError(PreflightError):
    """Values that must be unique, and that other records of the collection hold, stand in the way
    of a write. Nothing of it was written.

    Args:
        taken: id of each record that cannot be written so, and the ids of others that hold values
            which it must have alone. These are records that are not to be written themselves or,
            only where there are none such, some of those to be written together.
        constraints: id of each such record, and the name of a constraint or index that asks for it.
    """

    kind = "taken"

    def __init__(
        self,
        message: str,
        hint: str = "",
        *,
        taken: Mapping[str, Sequence[str]],
        constraints: Mapping[str, str],
    ) -> None:
        super().__init__(message, hint)
        self.taken = taken
        self.constraints = constraints

    @property
    def holders(self) -> list[str]:
        """Ids of the others, each once."""
        return list(dict.fromkeys(id for ids in self.taken.values() for id in ids))


class InputTooLongError(PreflightError):
    """A text is longer than the model takes, and the provider said so."""

    kind = "input-too-long"


class ProviderRefusedError(PreflightError):
    """A provider answered and said no: unknown model, wrong key, a request it will never take."""

    of_form = False
    """Whether another form of the same request may be taken."""

    kind = "provider-refused"


class QuotaError(ProviderRefusedError):
    """The account's quota or credit is used up: nothing more comes until somebody sees to it."""

    kind = "quota"


class ModelChangedError(PreflightError):
    """The model gives other vectors than when the run began."""

    kind = "model-changed"


class SourceChangedError(PreflightError):
    """The source is no longer the collection that the run exported."""

    kind = "source-changed"


class LossError(SourceChangedError):
    """A collection has lost all of its records, or more than half of them, and nobody said that
    they were meant to go."""

    kind = "loss"


class DamagedError(PreflightError):
    """A file of the run was changed or deleted by another than reembed."""

    kind = "damaged"


class DamagedStoreError(PreflightError):
    """A store cannot read what it has written itself.

    Args:
        place: the collection that is damaged, by its name; "" where it is more than one.
    """

    kind = "damaged-store"

    def __init__(self, message: str, hint: str = "", *, place: str = "") -> None:
        super().__init__(message, hint)
        self.place = place


class BudgetError(PreflightError):
    """The next request would cost more than `embed.max_cost` or `embed.max_tokens_total` allow.

    Refused, not out of reach: waiting changes nothing, somebody has to raise the cap.

    Args:
        tokens: what the request, or the texts that belong together, would have taken.
    """

    kind = "budget"

    def __init__(self, message: str, hint: str = "", *, tokens: int = 0) -> None:
        super().__init__(message, hint)
        self.tokens = tokens


class HeldError(PreflightError):
    """A `hold` file says that the live name must not move now."""

    kind = "held"


class OutOfMemoryError(PreflightError):
    """This process may not have as much memory as the step takes."""

    kind = "memory"

    def __init__(self, what: str) -> None:
        super().__init__(
            f"out of memory: {what}",
            "Give the process more (see `ulimit -v` and the container's limit), or less to do at "
            "once with embed.concurrency and model.options.batch_items, and run the same command "
            "again: it resumes.",
        )


class OutputError(PreflightError):
    """The result cannot be written to stdout. What the command did is done."""

    kind = "output"


class LockedError(ReembedError):
    """Another run holds the lease."""

    exit_code = 6
    kind = "locked"


class UnreachableError(ReembedError):
    """A provider or a store is out of reach, or keeps failing. Running again resumes."""

    exit_code = 7
    kind = "unreachable"


class BadVectorsError(UnreachableError):
    """A provider kept answering with vectors that cannot be right: count, dimension, NaN, zeros."""

    kind = "bad-vectors"


class InterruptedRunError(ReembedError):
    """The run was stopped by a signal. Running again resumes."""

    exit_code = 130
    kind = "interrupted"


def refuse_windows() -> None:
    """Raise PreflightError on Windows itself, whose file locks are others, and which renames no
    file that is open. In WSL it is Linux."""
    if sys.platform == "win32":
        raise PreflightError(
            "reembed runs on Linux and macOS, not on Windows itself",
            "Use WSL (`wsl --install`): install reembed there, and run the same command.",
        )
