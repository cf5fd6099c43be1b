"""What a request costs, by how it ended."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from reembed.embedders.provider import RejectedInputError, TransientError
from reembed.embedders.sending.throttle import Cancelled
from reembed.embedders.spending import Account, Bill
from reembed.errors import ProviderRefusedError, UnreachableError


@contextmanager
def billed(
    account: Account, tokens: int, cancelled: threading.Event, *, capped: bool
) -> Iterator[Bill]:
    """Count the request that is sent in the block, which settles the bill once it is answered.

    One that fails costs nothing if the provider refused it, or was not there at all. One of which
    nothing more is known (a connection that broke, an answer that never ended) may have been paid
    for, so it counts.

    Raises:
        BudgetError: see `Spending.reserve`.
        Cancelled: `cancelled` was set.
    """
    bill = account.reserve(tokens, cancelled, capped=capped)
    if bill is None:
        raise Cancelled
    try:
        yield bill
    except TransientError as error:
        bill.settle(0 if error.unpaid else None)
        raise
    except (RejectedInputError, ProviderRefusedError, UnreachableError):
        bill.settle(0)
        raise
    finally:
        bill.settle()
