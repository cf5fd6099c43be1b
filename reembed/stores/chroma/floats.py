"""Which float to hand to Chroma so that the float wanted is the one it stores.

Chroma's queue keeps metadata as JSON text, written with shortest digits and read back by serde_json
without its `float_roundtrip` feature: digits as a u64, converted to a double, then multiplied or
divided by a power of ten. Each of the two steps rounds, so one value in six comes out one or more
units in the last place off (measured: 17 % of random doubles, 10 % of `time.time()` values), and a
copy of a copy drifts again. A local path applies it once, the HTTP server twice (body and queue).

The arithmetic is deterministic, so it can be run backwards: `to_send` searches the few neighbours
of a value for one that arrives as it. Every value that Chroma 1.x itself stored in the same mode
has one. Values written by Chroma 0.5 (exact) may have none; those are written to SQLite directly
where the file is at hand (`chroma_sqlite.set_floats`).
"""

from __future__ import annotations

import math

_POWERS = [float(f"1e{exponent}") for exponent in range(309)]
_NEIGHBOURS = 8


def stored_as(value: float, passes: int) -> float:
    """The double that Chroma stores when it is handed a finite `value`.

    Follows `f64_from_parts` of serde_json 1.0 (src/de.rs).

    Args:
        passes: 1 through PersistentClient, 2 through the HTTP server.
    """
    for _ in range(passes):
        value = _serde_json(value)
    return value + 0.0  # SQLite keeps -0.0 as 0


def to_send(value: float, passes: int) -> float | None:
    """The float to hand to Chroma so that it stores a finite `value`; None if there is none."""
    value += 0.0
    if stored_as(value, passes) == value:
        return value
    above = below = value
    for _ in range(_NEIGHBOURS):
        above = math.nextafter(above, math.inf)
        below = math.nextafter(below, -math.inf)
        for candidate in (above, below):
            if math.isfinite(candidate) and stored_as(candidate, passes) == value:
                return candidate
    return None


def _serde_json(value: float) -> float:
    digits, _, exponent_text = repr(abs(value)).partition("e")
    whole, _, fraction = digits.partition(".")
    exponent = (int(exponent_text) if exponent_text else 0) - len(fraction)
    result = float(int(whole + fraction))
    if exponent < -308:
        result /= 1e308
        exponent += 308
    power = _POWERS[abs(exponent)]
    return math.copysign(result * power if exponent >= 0 else result / power, value)
