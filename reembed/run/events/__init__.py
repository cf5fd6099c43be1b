"""Every event that a run's journal can hold, each with what it tells.

An event is written as `run.history.record(events.Loaded(...))` and read as `run.history.all(...)`
or `last(...)` of its class, or by a question in `history.py`: a search for the class finds who
writes it and who reads it. To add one, add a class to `build.py` or `move.py`: `EVENTS` finds it.
Its name and its fields are what stands in the file, and runs outlive versions: neither is ever
renamed, and a field that comes later has a default.
"""

from __future__ import annotations

from reembed.run.events.build import *  # noqa: F403  (every class, by its own name)
from reembed.run.events.event import *  # noqa: F403
from reembed.run.events.event import Event
from reembed.run.events.group import *  # noqa: F403
from reembed.run.events.move import *  # noqa: F403


def _classes(base: type[Event]) -> dict[str, type[Event]]:
    found = {base.event: base} if base.event else {}
    for kind in base.__subclasses__():
        found |= _classes(kind)
    return found


EVENTS = _classes(Event)
"""Every event by its name in the journal."""
