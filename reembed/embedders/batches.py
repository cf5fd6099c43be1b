"""A provider's batch API: files of requests that are answered within a day, for half the price.

A provider that has one offers it as `batches`. A batch is known by a label of ours from before it
is made, so that one whose answer was lost is found again and nothing is paid twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from reembed.embedders.provider import Price
from reembed.records import Vectors


@dataclass(frozen=True)
class BatchState:
    """How far a batch is.

    Attributes:
        status: `working`; `ended` (in whole or in part: the results tell); `refused` (nothing of it
            was or will be done).
        total, completed, failed: requests.
        message: what the provider says of it.
        results: names of the provider's files that hold answers and errors.
    """

    id: str
    status: Literal["working", "ended", "refused"]
    total: int = 0
    completed: int = 0
    failed: int = 0
    message: str = ""
    results: tuple[str, ...] = ()


@dataclass(frozen=True)
class BatchAnswer:
    """What became of one request of a batch.

    Attributes:
        key: that the request was given.
        vector: `(1, d) float32`; None if there is none.
        tokens: as the provider counted.
        again: without a vector: whether it was never looked at, such as when the batch expired.
    """

    key: str
    vector: Vectors | None = None
    tokens: int | None = None
    again: bool = False


class Batches(Protocol):
    """See the module. Every call raises TransientError for what passes, and ProviderRefusedError
    or UnreachableError for what does not."""

    most_requests: int
    most_bytes: int
    poll_seconds: float

    @property
    def price(self) -> Price | None:
        """Of a million tokens in a batch."""
        ...

    def request(self, key: str, text: str) -> bytes:
        """One line of a batch's file, with its line end."""
        ...

    def submit(self, file: Path, label: str) -> str:
        """Make a batch of a file of requests; returns its id."""
        ...

    def find(self, label: str) -> str | None:
        """The id of the batch that was made with this label, None if there is none."""
        ...

    def look(self, id: str) -> BatchState: ...

    def answers(self, state: BatchState) -> Iterator[BatchAnswer]:
        """What became of each request of a batch that has ended, in any order."""
        ...

    def close(self) -> None: ...
