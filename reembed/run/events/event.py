"""One line of a journal: what every event has, and what its fields may hold."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

LARGEST = 2**53
"""JSON readers agree on whole numbers up to here; no figure of a run comes near."""
LAST_SECOND = 253_402_300_799
"""The end of the year 9999: what comes later has no date."""

Action = Literal["swap", "rollback"]
Hook = Literal["before", "after"]
Stage = Literal["export", "embed", "load"]
Count = Annotated[int, Field(ge=0, le=LARGEST)]
Figure = Annotated[float, Field(allow_inf_nan=False, ge=-LARGEST, le=LARGEST)]
Moment = Annotated[float, Field(allow_inf_nan=False, ge=0, le=LAST_SECOND)]
Stats = dict[str, Count | Figure]
ShardName = Annotated[str, Field(pattern=r"^[\w-]+/[\w-]+\.parquet$")]
RowHash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Event(BaseModel):
    """One line of the journal.

    Attributes:
        t: when it was written, seconds since the epoch: for people; the order is that of the lines.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)
    event: ClassVar[str] = ""
    t: Moment = 0.0

    def fields(self) -> dict[str, Any]:
        """What stands in the line, but for the time and the name."""
        return self.model_dump(exclude={"t"})
