"""Migrations: one, several that move together (`group`), and one that goes on (`following`)."""

from reembed.migration.migration import Migration

__all__ = ["Migration"]
