"""What the embedders of one command share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from reembed.embedders.sending.sizes import Memory
from reembed.embedders.spending import Spending
from reembed.run.guards import Pause


@dataclass(frozen=True)
class Shared:
    """See the module.

    Attributes:
        spending: the books that requests are counted in, with the caps that stop them. What is
            sent to know the model (one sentence, the probes) is counted and not stopped.
        pause: while it lasts, no request leaves.
        memory: what earlier calls have learnt of the provider's limits, and where to keep it.
        recalls: whether what is embedded for a look (not stored) is remembered until the embedder
            is closed, so that no text of a command is paid for twice.
        waiting: told of a wait for a provider: seconds, and why.
    """

    spending: Spending = field(default_factory=Spending)
    pause: Pause | None = None
    memory: Memory = field(default_factory=Memory)
    recalls: bool = False
    waiting: Callable[[float, str], None] = lambda seconds, why: None
