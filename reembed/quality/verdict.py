"""Gates and the verdict. A swap needs every gate to pass; what is `shown` never gates."""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any, Literal

from reembed.display.shown import Face, Shown

Status = Literal["pass", "fail", "inconclusive", "shown"]


@dataclass(frozen=True, repr=False)
class Gate(Shown):
    """One check's outcome.

    Attributes:
        name: integrity, opening (Chroma), fidelity, index, recall; after a swap, late writes.
        status: pass, fail or inconclusive gate the swap; shown informs.
        message: one sentence with the figures that decided.
        figures: every figure by name.
        samples: up to 20 record ids or texts by finding, for whoever looks into it.
    """

    name: str
    status: Status
    message: str
    figures: dict[str, Any] = field(default_factory=dict)
    samples: dict[str, list[str]] = field(default_factory=dict)

    def _face(self) -> Face:
        return Face(f"{self.name}: {self.status}, {self.message}")


@dataclass(frozen=True, repr=False)
class Verdict(Shown):
    """All gates of a run together, and what is needed to compute them again.

    Attributes:
        run: run id.
        seed: of the samples that were drawn.
        gates: in the order in which they were checked.
    """

    run: str
    seed: int
    gates: tuple[Gate, ...]

    @property
    def passed(self) -> bool:
        """Whether every gate that gates passed."""
        return all(gate.status in ("pass", "shown") for gate in self.gates)

    @property
    def failing(self) -> list[Gate]:
        """The gates in the way of the swap."""
        return [gate for gate in self.gates if gate.status in ("fail", "inconclusive")]

    def packed(self) -> Verdict:
        """The same in a twentieth of the memory, for a thousand that are kept at once."""
        return _Packed(self)

    def to_dict(self) -> dict[str, Any]:
        return {
            "run": self.run,
            "seed": self.seed,
            "passed": self.passed,
            "gates": [asdict(gate) for gate in self.gates],
        }

    def _face(self) -> Face:
        failing = ", ".join(f"{gate.name} {gate.status}" for gate in self.failing)
        told = f"refused: {failing}" if failing else f"pass, {len(self.gates)} gates"
        rows = [(gate.name, f"{gate.status}: {gate.message}") for gate in self.gates]
        return Face(f"of run {self.run}: {told}", list(rows))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Verdict:
        return cls(data["run"], data["seed"], tuple(Gate(**gate) for gate in data["gates"]))


class _Packed(Verdict):
    """A verdict whose gates are unpacked when they are asked for."""

    def __init__(self, verdict: Verdict) -> None:
        gates = json.dumps([asdict(gate) for gate in verdict.gates]).encode()
        for name, value in (("run", verdict.run), ("seed", verdict.seed),
                            ("_gates", zlib.compress(gates, 1))):  # fmt: skip
            object.__setattr__(self, name, value)

    @property
    def gates(self) -> tuple[Gate, ...]:
        return _unpacked(self.__dict__["_gates"])


@lru_cache(maxsize=2)
def _unpacked(gates: bytes) -> tuple[Gate, ...]:
    return tuple(Gate(**gate) for gate in json.loads(zlib.decompress(gates)))
