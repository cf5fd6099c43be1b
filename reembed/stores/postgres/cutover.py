"""The move of a live name in a Postgres database: see `move.mover`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reembed.errors import PreflightError
from reembed.manifest import SwapKind
from reembed.stores.postgres.catalog import Catalog
from reembed.stores.postgres.changes import TableChanges
from reembed.stores.postgres.client import mapped
from reembed.stores.postgres.move import columns as pg_columns
from reembed.stores.postgres.move.mover import Mover
from reembed.stores.values import CollectionInfo, Exchange, Prepared, Receipt

GUARANTEE = (
    "one transaction: every statement sees the old table or the new one whole, never neither and "
    "never an empty one; writers wait while their last writes are copied, readers for the instant "
    "of the move, and transactions on an older snapshot are waited for"
)


class TableCutover:
    """See `reembed.stores.store.Cutover`."""

    def __init__(self, catalog: Catalog, mover: Mover, changes: TableChanges) -> None:
        self._catalog = catalog
        self._mover = mover
        self._changes = changes

    @property
    def kinds(self) -> Mapping[SwapKind, str]:
        return {"transaction": GUARANTEE}

    def follow(self, live: str) -> CollectionInfo | None:
        return None

    def fit_name(self, name: str) -> str:
        return self._catalog.fit_name(name)

    def check(self, live: str, parked: str, outgoing_id: str) -> None:
        self._catalog.check_name(live)
        self._catalog.check_name(parked, outgoing_id)

    def exchange(self, kind: SwapKind, exchange: Exchange) -> Receipt:
        if kind != "transaction":
            raise PreflightError(f"Postgres swaps by transaction, not by {kind}")
        return self.together([exchange])[0]

    def together(self, exchanges: Sequence[Exchange]) -> list[Receipt]:
        """See `Store.together`."""
        self._mover.exchange(exchanges)
        return [
            Receipt(
                "transaction",
                mark=self._changes.since(one.incoming_id, None).mark,
                held_seconds=self._mover.held_seconds,
            )
            for one in exchanges
        ]

    def prepare(self, live: str, incoming: str) -> Prepared:
        return self._mover.prepare(live, incoming)

    def hold_writes(self, incoming: Mapping[str, str], seconds: float) -> float | None:
        self._mover.hold(incoming, seconds)
        return 0.0

    def release_writes(self, live: str) -> None:
        self._mover.release()

    def withdraw(self, ids: Sequence[str]) -> None:
        """See `Store.withdraw`."""
        self._mover.release()
        with mapped(self._catalog.url):
            for id in ids:
                pg_columns.drop_columns(self._catalog.main, self._catalog.remains(id))
