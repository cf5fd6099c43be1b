"""Finds at how many tokens a server of unknown limit cuts or refuses, with one request.

Its texts are beginnings of one text, each longer than the last, and every stretch has words of its
own: where two beginnings get the same vector, the server has cut both. The count in its answer, if
it counts tokens, then tells where. A server that refuses says so itself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Literal

import numpy as np

from reembed.embedders.provider import RejectedInputError
from reembed.embedders.sending.fitting import WATCHED
from reembed.embedders.sending.manner import Manner
from reembed.embedders.sending.outcome import LimitFound
from reembed.embedders.sending.retry import StillFailing
from reembed.embedders.sending.sender import Sender
from reembed.embedders.sending.sizes import Sizes
from reembed.errors import ProviderRefusedError, QuotaError, UnreachableError

STEPS = (128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384)
"""Words of the beginnings, as many of them as the longest text asks for."""
LEAST_LIMIT = 8
SAME = 5e-4
"""Relative distance of two vectors of one text: servers answer up to 1.6e-4 apart."""
COMMON = (128, 256, 384, 512, 1024, 2048, 4096, 8192)
"""Limits that models have."""
ROUNDING = 0.03
_WORDS = """
    river stone garden window paper music winter bridge market table summer engine metal rocket fuel
    horse dance honey kitten doctor school letter number family water light house night music money
    power party story group world state right woman child point company system program question
    government problem service history person morning reason research girl moment air teacher force
    education foot boy age policy process love church ball court office door health art war
""".split()  # noqa: SIM905


def _beginning(words: int) -> str:
    """The first so many words; each stretch between two steps has five of its own."""
    found: list[str] = []
    for number, end in enumerate(STEPS):
        stretch = _WORDS[number * 5 : number * 5 + 5]
        found += [stretch[place % 5] for place in range(min(end, words) - len(found))]
        if end >= words:
            break
    return " ".join(found)


class LimitFinder:
    """Finds out once, before the first longer text is sent, how long texts may be.

    Args:
        where: names provider, model and address.
        note: told of a limit.
    """

    def __init__(
        self, sender: Sender, sizes: Sizes, where: str, note: Callable[[str], None]
    ) -> None:
        self._sender, self._sizes, self._where, self._note = sender, sizes, where, note
        self._found: LimitFound | None = None
        self._sought = WATCHED
        self._lock = threading.Lock()

    def find(self, longest: int) -> None:
        """Ask for texts of up to `longest` tokens by estimate, unless that is known."""
        with self._lock:
            limits = self._sender.limits()
            known = limits.max_tokens is not None or self._sizes.cuts is not None
            reached = max(self._sizes.whole, self._sought)
            if known or not limits.findable or limits.refuses_long or longest <= reached:
                return
            self._sought = longest
            self._found = find_limit(self._sender, self._sizes, longest)
        if self._found is not None and self._found.tokens:
            self._note(f"{self._where}: {self._found}")

    def told(self, on_too_long: Literal["fail", "truncate", "mean"]) -> list[str]:
        """What was found, for a plan."""
        if self._found is None:
            return []
        todo = {"fail": "are quarantined", "truncate": "are cut", "mean": "go in pieces"}
        known = f"; longer ones {todo[on_too_long]}" if self._found.tokens else ""
        return [f"{self._found}{known} (model.max_tokens, model.on_too_long)."]


def find_limit(sender: Sender, sizes: Sizes, longest: int) -> LimitFound | None:
    """Learn how long a text may be. None where the server would not tell.

    Args:
        longest: tokens by estimate of the longest text that is to be sent.

    Raises:
        QuotaError: nothing more will come.
    """
    above = next((n for n, step in enumerate(STEPS) if step >= longest), len(STEPS) - 1)
    steps = STEPS[: min(len(STEPS), above + 3)]  # two above it, to see both cut
    try:
        answer = sender.request(
            [_beginning(step) for step in steps],
            threading.Event(),
            manner=Manner(attempts=1, checked=False),
        )
    except RejectedInputError as error:
        if not error.too_long:
            return None
        limit = error.told.limit if error.told.unit in ("tokens", None) else None
        sizes.learn_text(limit, cuts=False)
        return LimitFound("refuses", limit)
    except QuotaError:
        raise
    except (StillFailing, ProviderRefusedError, UnreachableError):
        return None
    vectors = answer.vectors.astype(np.float64)
    if vectors.shape[0] != len(steps) or not np.isfinite(vectors).all():
        return None
    lengths = np.linalg.norm(vectors, axis=1)
    if not lengths.all():
        return None
    apart = np.linalg.norm(np.diff(vectors, axis=0), axis=1) / lengths[1:]
    cut = len(apart)
    while cut and apart[cut - 1] < SAME:
        cut -= 1
    if cut == len(apart):  # even the longest two differ
        sizes.learn_text(None, cuts=None, whole=longest)
        return LimitFound("whole", None, longest)
    low = steps[cut - 1] if cut else LEAST_LIMIT
    counted = answer.tokens if sizes.trusts_count else None
    limit = _between(low, steps[cut], steps[:cut], len(steps) - cut, counted)
    sizes.learn_text(limit, cuts=True)
    return LimitFound("cuts", limit)


def _between(low: int, high: int, whole: tuple[int, ...], cuts: int, counted: int | None) -> int:
    """The limit above `low` and up to about `high` tokens.

    Args:
        whole: words of the beginnings that were not cut; `cuts` of them were.
        counted: tokens of all, as the server says.
    """
    if counted is not None:
        each = (counted - sum(whole) - 2 * len(whole)) / cuts
        if low <= each <= high * (1 + ROUNDING) + 2:
            near = [known for known in COMMON if abs(known - each) <= ROUNDING * known]
            return near[0] if near else int(each * (1 - ROUNDING))
    likely = [known for known in COMMON if low < known <= high]
    return likely[-1] if likely else low
