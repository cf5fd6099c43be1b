"""The old place of `reembed.run`, kept for one release."""

from reembed.run.directory import RunDir, Shard
from reembed.run.journal import Journal

__all__ = ["Journal", "RunDir", "Shard"]
