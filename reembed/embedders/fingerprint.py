"""The fingerprint: what a model is, and how its vectors for fixed probe texts look.

The same name can stand for other vectors tomorrow: a server update changed nomic's upper case
(ollama/ollama #13942) and accents (#15609). Settings and digests tell some changes, probes tell all
that matter.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from reembed.errors import ModelChangedError
from reembed.records import Vectors, cosine_rows

PROBES = (
    ("english", "A vector collection is moved from one embedding model to another."),
    ("code", "def swap(a: int, b: int) -> tuple[int, int]:\n    return b, a  # x[-1] != y['k']"),
    ("accents", "Crème brûlée à l'œuvre; Größe, naïveté, Łódź, São Paulo — “déjà vu” 😀"),
    ("lower case", "the annual report of the northern railway company"),
    ("upper case", "THE ANNUAL REPORT OF THE NORTHERN RAILWAY COMPANY"),
    ("digits", "On 2024-02-29 invoice 000417 came to 1,234.56 for 12 x 3.5 kg (7 %)."),
    ("long", "Every shard is written whole or not at all, and a stopped run goes on. " * 8),
    ("other language", "今日は天気がいいので、散歩に行きましょう。"),
)
"""What is embedded as documents; the English one is embedded as a query too."""
QUERY_PROBE = "query"
SAME = 0.999
"""Cosine from which two vectors count as the same: the same call twice differs by 1e-4, a model's
other version by 0.01 and more."""


@dataclass(frozen=True)
class Fingerprint:
    """A model's settings, version and probe vectors.

    Attributes:
        settings: `Model.settings()`; they hold no secret.
        settings_sha256: their hash.
        dimensions: of its vectors.
        vectors: `(p, d) float32`, of `PROBES` and of the query probe.
        digest: of the weights, "" where the provider does not tell.
        details: server version and the like.
    """

    settings: dict[str, Any]
    settings_sha256: str
    dimensions: int
    vectors: Vectors = field(repr=False)
    digest: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """64 hexadecimal digits over settings, dimensions and digest: what the model is called.

        Not over the probe vectors, which wobble by 1e-4 from call to call: `identity` compares
        them.
        """
        return fingerprint_key(self.settings_sha256, self.dimensions, self.digest)

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe; `from_dict` is its inverse. Vectors are base64 of little-endian float32."""
        return {
            "key": self.key,
            "settings": self.settings,
            "settings_sha256": self.settings_sha256,
            "dimensions": self.dimensions,
            "digest": self.digest,
            "details": self.details,
            "vectors": base64.b64encode(self.vectors.astype("<f4").tobytes()).decode("ascii"),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Fingerprint:
        """The fingerprint that `to_dict` wrote. Raises KeyError or ValueError on anything else."""
        raw = np.frombuffer(base64.b64decode(data["vectors"]), "<f4")
        return cls(
            settings=data["settings"],
            settings_sha256=data["settings_sha256"],
            dimensions=data["dimensions"],
            vectors=raw.reshape(-1, data["dimensions"]).astype(np.float32),
            digest=data["digest"],
            details=data["details"],
        )


def fingerprint_key(settings_sha256: str, dimensions: int, digest: str) -> str:
    """See `Fingerprint.key`."""
    parts = json.dumps([settings_sha256, dimensions, digest])
    return hashlib.sha256(parts.encode()).hexdigest()


def compare(old: Fingerprint, new: Fingerprint) -> list[str]:
    """What changed without moving a vector, such as the server's version; one sentence each.

    Raises:
        ModelChangedError: settings, dimensions, digest or probe vectors differ.
    """
    if old.settings_sha256 != new.settings_sha256:
        keys = sorted(
            key
            for key in {*old.settings, *new.settings}
            if old.settings.get(key) != new.settings.get(key)
        )
        raise model_changed(f"the settings of the model changed: {', '.join(keys)}")
    if old.dimensions != new.dimensions:
        raise model_changed(f"the model gave {old.dimensions} dimensions, now {new.dimensions}")
    names = [*(name for name, _ in PROBES), QUERY_PROBE]
    if len(old.vectors) == len(new.vectors):
        cosines = cosine_rows(old.vectors, new.vectors)
        lengths = np.linalg.norm(new.vectors, axis=1) / np.linalg.norm(old.vectors, axis=1)
        moved = [
            f"{name} (cosine {cosine:.4f}, length x {length:.3f})"
            for name, cosine, length in zip(names, cosines, lengths, strict=True)
            if cosine < SAME or not 0.99 < length < 1.01
        ]
        if moved:
            versions = "; ".join(_differences(old.details, new.details))
            raise model_changed(
                f"the model gives other vectors than when the run began, for the probes "
                f"{', '.join(moved)}" + (f"; {versions}" if versions else "")
            )
    if old.digest and new.digest and old.digest != new.digest:
        raise model_changed(f"the model's digest was {old.digest[:16]}, now {new.digest[:16]}")
    return _differences(old.details, new.details)


def _differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    return [
        f"{key} was {old[key]}, now {new[key]}"
        for key in sorted(old.keys() & new.keys())
        if old[key] != new[key]
    ]


def model_changed(message: str) -> ModelChangedError:
    """The refusal of a model that is not the one with which a run began."""
    return ModelChangedError(
        message,
        "Vectors of two models must not mix: bring the old model back and run the same command "
        "again, or start a new run (another manifest name).",
    )
