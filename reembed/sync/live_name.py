"""Whether the live name leads to the collection of a run that it should lead to.

An application may delete its collection and make it anew, or rename another one to the name. What
the run then does to its own two collections would not reach what the application reads. So every
command looks the name up again, and says where it leads by now, and the ways on.
"""

from __future__ import annotations

from reembed.errors import CollectionNotFoundError, ReembedError, SourceChangedError
from reembed.run import events
from reembed.stages.refusals import other
from reembed.stages.session import Session
from reembed.stores.values import CollectionInfo

RENAME = "(Chroma: collection.modify(name=...))"


def astray(s: Session) -> ReembedError | None:
    """What is to be told of a live name that leads to none of the run's collections: to a third
    one, or to none at all. None where it leads to one of them, where no name moves, while a move is
    under way (which looks for itself), and before there is a run."""
    if not s.begun:
        return None
    history = s.run.history
    swap = history.last(events.SwapBegun)
    if history.census is None or history.pending_move or (swap and swap.kind == "config"):
        return None
    if history.last_move is not None:
        return _moved(s)
    return _before(s)  # an own shadow is nothing that the name should lead to yet


def _moved(s: Session) -> ReembedError | None:
    """As `astray`, once the name has moved."""
    history = s.run.history
    swap = history.last(events.SwapBegun)
    if swap is not None and swap.exchange.get("live") not in (None, s.manifest.live):
        return None  # another name was written into the manifest since, which `swap_kind` judges
    own = {s.new.id} if history.state == "cleaned" else {s.old.id, s.new.id}
    found = _found(s, s.manifest.live)
    if found is not None and found.id in own:
        return None
    return _after(s, found) if history.last_move == "swap" else _back(s, found)


def refuse_astray(s: Session) -> None:
    """Raise what `astray` finds, but for a run that is cleaned up: it has nothing left to do."""
    error = astray(s) or _reshaped(s)
    if error is not None and s.run.history.state != "cleaned":
        raise error


def _reshaped(s: Session) -> ReembedError | None:
    """What is to be told of a source that has the name, and holds its records in other columns than
    when it was exported. After a swap the old collection's columns are nobody's to change."""
    if not s.begun or s.run.history.census is None or s.run.history.last_move == "swap":
        return None
    found = _found(s, s.manifest.source.collection)
    if found is None or found.id != s.source.id:
        return None
    return other(found, s.source, s.run)


def told_astray(s: Session) -> list[str]:
    """What `astray` finds, as a message."""
    error = astray(s)
    return [] if error is None else [f"{error.message}. {error.hint}"]


def made_anew(s: Session) -> bool:
    """Whether the application has deleted the source and made it anew before its name moved."""
    history = s.run.history
    if history.census is None or history.pending_move or history.last_move == "swap":
        return False
    found = _found(s, s.manifest.source.collection)
    return found is not None and found.id != s.source.id and s.old.describe() is None


def look_up(s: Session) -> tuple[list[str], bool]:
    """For `status`: what is to be told of the live name, and whether it is lost to the run."""
    if s.run.history.state in ("cleaning", "cleaned"):
        return [], False
    lost, reshaped = told_astray(s), _reshaped(s)
    told = [f"{reshaped.message}. {reshaped.hint}"] if reshaped else []
    return lost or [*told, *_beside(s)], bool(lost)


def _beside(s: Session) -> list[str]:
    """What is to be told of a plain collection that stands beside the pointer of the live name."""
    swap = s.run.history.last(events.SwapBegun)
    if swap is None or swap.kind != "pointer" or s.run.history.last_move is None:
        return []
    live = s.manifest.live
    plain = s.store.catalog.find(live)
    if plain is None or plain.id in (s.old.id, s.new.id):
        return []
    return [
        f"beside the pointer there is a plain collection {live!r} (id {plain.id}, {plain.count:,} "
        "records), which this run did not make: an application that opens the name without "
        "reembed.live reads and writes that one. Let it open the name by reembed.live.open, and "
        f"rename the plain one {RENAME} or delete it"
    ]


def refuse_third(s: Session) -> None:
    """As `refuse_astray`, but for a name that leads to no collection since the one that it led to
    is gone: a way back gives it to the old one. One that was renamed has to be named back first."""
    error = astray(s)
    if error is None:
        return
    if _found(s, s.manifest.live) is not None or _was_renamed(s):
        raise error


def _was_renamed(s: Session) -> bool:
    """Whether the new collection, which is live, has a name that no step of the run gives it."""
    history = s.run.history
    if history.last_move != "swap" or history.require(events.SwapBegun).kind == "pointer":
        return False
    new = s.new.describe()
    return new is not None and new.name not in (s.manifest.live, history.shadow_name)


def _found(s: Session, name: str) -> CollectionInfo | None:
    """The collection that a name leads to; None where it leads to none, be it that its pointer
    points to one that is gone."""
    try:
        return s.source_store.resolve(name)
    except (CollectionNotFoundError, SourceChangedError):
        return None


def _before(s: Session) -> ReembedError | None:
    """Before the name has moved: it leads to what was exported, or there is something to tell."""
    name = s.manifest.source.collection
    found = _found(s, name)
    if found is not None and found.id == s.source.id:
        return None
    old = s.old.describe()
    ways = [] if found else ["Somebody deleted or renamed it."]
    if s.source.name == name:  # else it is a pointer's
        ways += _rename_back(name, "old", old, found)
    if found is None:
        return SourceChangedError(
            f"{name!r} serves no collection now; of the one that run {s.run.run_id} exported: "
            f"{_left('old', old)}",
            " ".join([*ways, *_start_over(s, old, found)]),
        )
    anew, error = s.in_group and made_anew(s), other(found, s.source, s.run)
    if error is not None and anew:
        again = f"If the application made it anew, `reembed run {_path(s)}` begins again with it."
        return SourceChangedError(error.message, again)
    if error is not None:
        error.hint = " ".join([error.hint, *ways])
    return error


def _back(s: Session, found: CollectionInfo | None) -> ReembedError:
    """After the way back: the name should lead to the old one."""
    old = s.old.describe()
    ways = _start_over(s, old, found)
    if s.run.history.require(events.SwapBegun).kind != "pointer":
        ways = [*_rename_back(s.manifest.live, "old", old, found), *ways]
    return SourceChangedError(_where(s, found), " ".join(ways))


def _after(s: Session, found: CollectionInfo | None) -> ReembedError:
    """After the swap: the name should lead to the new one."""
    path, old, new = _path(s), s.old.describe(), s.new.describe()
    ways = ["Somebody deleted or renamed the collection."]
    if new is not None and s.run.history.require(events.SwapBegun).kind != "pointer":
        ways += _rename_back(s.manifest.live, "new", new, found)
        if old is not None:
            ways.append(f"Then `reembed rollback {path} --yes` goes back to the old one.")
    elif old is not None:
        first = f"rename the one that is there {RENAME}, and then " if found else ""
        lost = "" if new else " --accept-loss"
        ways.append(
            f"To have the old one back, {first}`reembed rollback {path} --yes{lost}` gives it the "
            "name."
        )
    if found is not None:
        taken = new is not None and new.name == s.run.history.shadow_name
        ways.append(
            "To move the one that is there now, give the manifest another `name`"
            + (" and a `target.collection`" if taken else "")
            + " and use `reembed run`."
        )
    elif old is None and new is None:
        ways.append(f"The export shards of {s.run.path} hold every record with its old vector.")
    return SourceChangedError(_where(s, found), " ".join(ways))


def _where(s: Session, found: CollectionInfo | None) -> str:
    leads = (
        f"serves a third collection now (id {found.id}, {found.count:,} records), which this run "
        "did not make"
        if found
        else "serves no collection now"
    )
    left = f"{_left('new', s.new.describe())} and {_left('old', s.old.describe())}"
    return f"{s.manifest.live!r} {leads}; of its own two {left}"


def _left(which: str, info: CollectionInfo | None) -> str:
    if info is None:
        return f"the {which} one is gone"
    return f"the {which} one is there as {info.name!r} with {info.count:,} records"


def _rename_back(
    live: str, which: str, mine: CollectionInfo | None, found: CollectionInfo | None
) -> list[str]:
    """How the name leads to a collection again that has another one now."""
    if mine is None:
        return []
    first = "rename the one that is there, and then" if found else "rename"
    return [f"To have the {which} one back, {first} {mine.name!r} to {live!r} {RENAME}."]


def _start_over(s: Session, old: CollectionInfo | None, found: CollectionInfo | None) -> list[str]:
    """The ways on without the old collection, or with the one that has its name now."""
    path = _path(s)
    over = (
        f"`reembed clean {path} --yes` deletes this run's new collection (with --accept-loss where "
        f"that is the last to hold a record), and `reembed run {path}` begins again and no text is "
        "paid for twice."
    )
    if found is not None:
        return [f"To start over with the one that is there: {over}"]
    if old is not None:
        return []
    return [
        f"Restore it (the export shards of {s.run.path} hold every record with its old vector), or "
        f"let the application make it again. Then {over}"
    ]


def _path(s: Session) -> str:
    return s.run.shown_manifest(s.manifest)
