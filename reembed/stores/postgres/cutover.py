"""The move of a live name in a Postgres database: see `move.mover`."""

from __future__ import annotations

from collections.abc import Mapping

from reembed.errors import PreflightError
from reembed.manifest import SwapKind
from reembed.stores.postgres.catalog import Catalog
from reembed.stores.postgres.changes import TableChanges
from reembed.stores.postgres.move.mover import Mover
from reembed.stores.values import CollectionInfo, Exchange, Receipt

GUARANTEE = (
    "one transaction: every statement sees the old table or the new one whole, never neither and "
    "never an empty one; writers wait while their last writes are carried, readers for the instant "
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
        self._mover.exchange(exchange)
        mark = self._changes.since(exchange.incoming_id, None).mark
        return Receipt("transaction", mark=mark)

    def hold_writes(self, live: str, seconds: float, incoming: str) -> float | None:
        self._mover.hold(live, seconds, incoming)
        return 0.0

    def release_writes(self, live: str) -> None:
        self._mover.release()
