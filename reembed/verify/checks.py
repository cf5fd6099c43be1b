"""The gates of a run, with what a session has open."""

from __future__ import annotations

from typing import Any

from reembed.run.guards import Wait
from reembed.run.ledger import Ledger
from reembed.stages.session import Session
from reembed.verify.embedded import EmbeddedVerification
from reembed.verify.gates import Verification
from reembed.verify.kept import KeptVerification


def verification(
    s: Session, *, found: Verification | None = None, ledger: Ledger | None = None,
    wait: Wait | None = None,
) -> Verification:  # fmt: skip
    """The gates of this run's shadow, with what the session has open.

    Args:
        found: what was found before, which is taken if it is of the same shards.
        ledger, wait: for another thread; default: the session's.
    """
    manifest = s.manifest
    given: dict[str, Any] = {
        "run": s.run, "shadow": s.new, "source_metric": s.source.metric,
        "target_metric": manifest.target.metric or s.source.metric, "template": s.template,
        "ledger": ledger or s.ledger, "settings": manifest.verify, "source": s.old,
        "wait": wait or s.pause.wait, "found": found,
        "key_indexes": s.source.key_indexes if manifest.target_url.startswith("chroma") else None,
    }  # fmt: skip
    if manifest.keeps:
        return KeptVerification(**given)
    old_embedder = s.old_embedder
    return EmbeddedVerification(
        **given, embedder=s.embedder, old_embedder=old_embedder, old_model_note=s.old_model_note
    )
