"""The old place of `reembed.run.directory`, kept for one release."""

from reembed.run.directory import Journal, RunDir, Shard

__all__ = ["Journal", "RunDir", "Shard"]
