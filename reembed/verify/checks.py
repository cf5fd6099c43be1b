"""The gates of a run, with what a session has open."""

from __future__ import annotations

from typing import Any

from reembed.stages.session import Session
from reembed.verify.embedded import EmbeddedVerification
from reembed.verify.gates import Verification
from reembed.verify.kept import KeptVerification


def verification(s: Session) -> Verification:
    """The gates of this run's shadow, with what the session has open."""
    manifest = s.manifest
    given: dict[str, Any] = {
        "run": s.run, "shadow": s.new, "source_metric": s.source.metric,
        "target_metric": manifest.target.metric or s.source.metric, "template": s.template,
        "ledger": s.ledger, "settings": manifest.verify, "source": s.old, "wait": s.pause.wait,
        "key_indexes": s.source.key_indexes if manifest.target_url.startswith("chroma") else None,
    }  # fmt: skip
    if manifest.keeps:
        return KeptVerification(**given)
    old_embedder = s.old_embedder
    return EmbeddedVerification(
        **given, embedder=s.embedder, old_embedder=old_embedder, old_model_note=s.old_model_note
    )
