"""One surrounding of a table in Postgres, as an application's migrations make it."""

from __future__ import annotations

from typing import NamedTuple


class Case(NamedTuple):
    """One surrounding.

    Attributes:
        statements: what makes it, role {role} being there.
        refused: what the blocker says if plan refuses it; empty where it must be carried.
        works: a query whose answer is the same all along.
    """

    statements: str
    refused: str = ""
    works: str = "SELECT count(*) FROM docs"
