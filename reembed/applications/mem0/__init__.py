"""What reembed knows of mem0 beside its tables: its configuration and its history.

mem0 embeds its own queries and cannot follow a name, so its configuration and its tables must
change together: with one of them alone every search fails, or finds garbage. Nothing here imports
mem0, and no secret of a configuration reaches a message.
"""

from __future__ import annotations

from reembed.applications.mem0.change import changed_config
from reembed.applications.mem0.config import Mem0Config, check, read_config
from reembed.applications.mem0.history import living_memories, refuse_fresh_database

__all__ = [
    "Mem0Config",
    "changed_config",
    "check",
    "living_memories",
    "read_config",
    "refuse_fresh_database",
]
