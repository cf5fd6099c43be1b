"""Which model made the source: the manifest says, or the application's configuration, or the record
that the store keeps."""

from __future__ import annotations

from reembed.applications.mem0.plan import old_model
from reembed.embedders.recorded import believe
from reembed.manifest import Manifest, Model
from reembed.stores.values import CollectionInfo


def source_model(manifest: Manifest, source: CollectionInfo) -> tuple[Model | None, str]:
    """The old model, or None with the reason why it is not called."""
    model = manifest.source.model or old_model(manifest)
    if model is not None:
        return model, ""
    recorded = believe(source.model, [manifest.new_model])
    if recorded is None:
        return None, (
            "the old model is unknown (the store recorded none, and source.model is not given)"
        )
    if recorded.model is None:
        return None, (
            f"the old model is not called: {recorded.problem}; if it is right, give it as "
            "source.model, as `reembed plan` prints it"
        )
    return recorded.model, ""
