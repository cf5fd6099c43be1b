"""How far a command is: what stages tell, how fast it goes, and nothing said by default."""

from reembed.progress.told import (
    Counter,
    Forwarded,
    Later,
    Progress,
    human_bytes,
    human_time,
    note,
    short_time,
    stage,
    telling,
)
from reembed.progress.tracked import Stand, Tracked

__all__ = [
    "Counter", "Forwarded", "Later", "Progress", "Stand", "Tracked", "human_bytes", "human_time",
    "note", "short_time", "stage", "telling",
]  # fmt: skip
