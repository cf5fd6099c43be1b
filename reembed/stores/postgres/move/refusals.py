"""What has come since the plan, and lets no tables be exchanged."""

from __future__ import annotations

from collections.abc import Sequence

from reembed.errors import PreflightError
from reembed.stores.postgres.catalog import Catalog
from reembed.stores.postgres.client import Connection
from reembed.stores.postgres.schema.dependents import dependents
from reembed.stores.postgres.schema.notes import read_note
from reembed.stores.postgres.schema.shape import changes
from reembed.stores.postgres.schema.table import Table


def not_exchanged(table: Table, forbidden: Sequence[str]) -> PreflightError:
    """The refusal of a table on which this hangs."""
    return PreflightError(
        f"{table.label} cannot be exchanged: {'; '.join(forbidden)}",
        "Nothing was moved. Remove that, or set swap.kind: config to leave the new collection "
        "ready under its own name.",
    )


def refuse_forbidden(catalog: Catalog, tables: Sequence[Table]) -> None:
    """Raise PreflightError where something hangs on a table that allows no exchange."""
    for table in tables:
        stays = catalog.stays(table)
        forbidden = dependents(catalog.main, table, stays=stays).forbidden
        if forbidden:
            raise not_exchanged(table, forbidden)


def refuse_reshaped(
    connection: Connection, pairs: Sequence[tuple[Table, Table]], *, by_name: bool
) -> None:
    """Raise PreflightError where a live table has changed since the other one was made like it.

    Args:
        by_name: whether the tables exchange their names.
    """
    for live, other in pairs:
        if not any("like" in read_note(connection, table) for table in (live, other)):
            continue
        back = "like" in read_note(connection, live)
        found = changes(connection, live, other, whole=by_name, back=back)
        if found:
            raise PreflightError(
                f"{live.label} is no longer as {other.label} is: {'; '.join(found)}",
                f"Nothing was moved. Undo that, or do the same to {other.label}, and run the same "
                "command again. Before the swap, `reembed run --restart` begins anew with the "
                "table as it is, and pays for no text twice.",
            )
