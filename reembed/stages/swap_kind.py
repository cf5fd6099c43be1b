"""Which kind of swap a manifest gets on its store, what that kind may claim there, and which name
the old collection gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from reembed.errors import CollectionNotFoundError, PreflightError
from reembed.manifest import Manifest, SwapKind
from reembed.stores.store import Cutover, Store
from reembed.stores.values import CollectionInfo

PREFERENCE: tuple[SwapKind, ...] = ("transaction", "alias")
"""What `auto` takes where the live name is no pointer; `rename` comes last and must be accepted."""

CONFIG_GUARANTEE = (
    "no name moves: the new collection is left ready, and the change to the application's "
    "configuration is printed"
)


@dataclass(frozen=True)
class SwapPlan:
    """How the live name will move.

    Attributes:
        kind: the swap kind.
        guarantee: what it may claim here, in the store's words.
        live: the name the application reads.
    """

    kind: SwapKind
    guarantee: str
    live: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def choose_kind(store: Store, manifest: Manifest, source: CollectionInfo) -> SwapPlan:
    """The kind of swap that this manifest gets here, with its guarantee.

    Raises:
        PreflightError: no acceptable kind is possible; the hint names the ways out.
    """
    swap, live = manifest.swap, manifest.live
    if manifest.target_url != manifest.source.url:
        if swap.kind not in ("auto", "config"):
            raise PreflightError(
                f"swap.kind {swap.kind} cannot move a name from one store to another",
                "Leave it at auto: the new collection is left ready in the target store.",
            )
        return SwapPlan("config", CONFIG_GUARANTEE, live)
    if swap.kind == "config":
        return SwapPlan("config", CONFIG_GUARANTEE, live)
    cutover = store.to_move()
    kinds = cutover.kinds
    is_pointer = cutover.follow(live) is not None
    kind = wanted_kind(swap.kind, kinds, swap.accept_window, is_pointer)
    _check_live(store, manifest, source, kind)
    return SwapPlan(kind, kinds[kind], live)


def wanted_kind(
    wanted: str, kinds: Mapping[SwapKind, str], accept_window: bool, is_pointer: bool
) -> SwapKind:
    """The kind that is wanted, or the best that there is. Raises PreflightError."""
    ways_out = [
        "swap.kind: pointer (the application opens the name through reembed.live; no gap)",
        "swap.accept_window: true (two renames with a gap of a few ms)",
    ]
    if wanted == "auto" and "transaction" not in kinds:
        ways_out.append("source.data_dir: the server's own directory (one transaction; no gap)")
    hint = "Ways out: " + "; ".join(ways_out) + "."
    if wanted == "rename" and not accept_window:
        raise PreflightError(
            "swap.kind rename has a gap of a few ms in which the live name does not exist", hint
        )
    if wanted != "auto":
        for kind in kinds:
            if kind == wanted:
                return kind
        raise PreflightError(
            f"this store cannot swap by {wanted}; it can by {', '.join(kinds)}",
            "Leave swap.kind at auto, or set it to one of these.",
        )
    if is_pointer:
        return "pointer"
    for kind in PREFERENCE:
        if kind in kinds:
            return kind
    if accept_window and "rename" in kinds:
        return "rename"
    raise PreflightError("the live name cannot be moved here without a gap", hint)


def parked_as(cutover: Cutover | None, live: str, run_id: str) -> str:
    """The old collection's name after a swap: `<live>__parked-<run id>`, as the store can have
    it."""
    name = f"{live}__parked-{run_id}"
    return cutover.fit_name(name) if cutover else name


def _check_live(store: Store, manifest: Manifest, source: CollectionInfo, kind: SwapKind) -> None:
    """The live name must lead to the source now, or be a pointer that is still to be made."""
    live = manifest.live
    try:
        current = store.resolve(live)
    except CollectionNotFoundError:
        if kind == "pointer":
            return
        raise PreflightError(
            f"swap.live {live!r} is not a collection, so there is no name to move",
            "Leave swap.live out, or use swap.kind: pointer to make a new live name.",
        ) from None
    if current.id != source.id:
        raise PreflightError(
            f"swap.live {live!r} serves {current.name!r}, not the source {source.name!r}",
            "The live name must be the source's own, or a pointer to it.",
        )
    if manifest.source.where is not None:
        raise PreflightError(
            f"source.where moves only a part of {source.name!r}, so swapping {live!r} would hide "
            "the rest from the application",
            "Leave where out, or set swap.kind: config to only build the new collection.",
        )
