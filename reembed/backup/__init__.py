"""Backups: snapshots of a collection that are checked, restored, drilled and pruned."""
