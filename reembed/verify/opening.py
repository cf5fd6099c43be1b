"""The gate `opening`: an application opens the new collection in every way in which it can open the
old one today.

Stores that keep an embedding function with a collection may refuse to open it with another one, or
where they do not know it; the records are then all there and of no use. So the ways are tried, by a
process that has nothing of reembed, on both collections.
"""

from __future__ import annotations

from reembed.manifest import FunctionChoice
from reembed.progress import stage
from reembed.quality.verdict import Gate
from reembed.stores.store import Store


@stage("verify: how the new collection opens")
def opening_gate(
    store: Store, shadow_id: str, source_id: str | None, choice: FunctionChoice, *, chosen: bool
) -> Gate | None:
    """What came of it; None where a store has nothing that could be in the way.

    Args:
        source_id: the old collection, None where it is in another store.
        choice: `record` is somebody's own wish to keep a function, whatever it costs.
        chosen: whether the shadow was made by it; versions before that kept a function always, and
            a run that they began goes on as it would have.
    """
    if store.opening is None:
        return None
    shadow = store.catalog.describe_id(shadow_id)
    source = store.catalog.describe_id(source_id) if source_id else None
    if shadow is None:
        return None
    found = store.opening([one.name for one in (shadow, source) if one])
    new = found[shadow.name]
    # Without the old one at hand: a function that is kept keeps others out, and nothing else may.
    old = found[source.name] if source else {way: "" for way in new if not shadow.function}
    lost = {way: why for way, why in new.items() if why and not old.get(way, why)}
    figures = {"new": new, "old": old if source else None, "function": shadow.function}
    if lost:
        told = "; ".join(f"{way}: {why}" for way, why in lost.items())
        if choice == "record":
            message = f"as target.embedding_function: record has it, these ways fail: {told}"
            return Gate("opening", "pass", message, figures)
        if not chosen:
            message = (
                f"made by a version that always kept a function, so these ways fail: {told}; "
                "`reembed clean` and then `reembed run` make it again without one"
            )
            return Gate("opening", "shown", message, figures)
        return Gate("opening", "fail", f"what opens the old collection fails: {told}", figures)
    worked = sum(not why for why in new.values())
    kept = f"the function {shadow.function!r}" if shadow.function else "no function"
    return Gate(
        "opening", "pass",
        f"{worked} of {len(new)} ways of opening work without reembed, all that open the old "
        f"collection; {kept} is kept with it",
        figures,
    )  # fmt: skip
