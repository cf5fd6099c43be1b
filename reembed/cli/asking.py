"""What `reembed init` asks in a terminal for what its arguments do not say."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from reembed.cli.menu import Choice, ask, can_ask, choose
from reembed.cli.showing import shown
from reembed.errors import UsageError


@dataclass(frozen=True)
class Wanted:
    """What `init` needs to know.

    Attributes:
        url: of the store; None as long as nobody said it.
        collection: None: the only one.
        model: `PROVIDER:NAME`; None: an example, to be replaced.
        output: the file to write; None: stdout.
    """

    url: str | None
    collection: str | None = None
    model: str | None = None
    output: Path | None = None


def complete(wanted: Wanted, *, may_ask: bool) -> Wanted:
    """`wanted` with the answers of whoever is at the terminal.

    Args:
        may_ask: False: no question is asked even in a terminal.

    Raises:
        UsageError: there is no URL, and nobody can be asked.
        KeyboardInterrupt: they leave.
    """
    if not (may_ask and can_ask()):
        if wanted.url is None:
            raise UsageError(
                "URL is missing: which store to look into",
                "For example `reembed init chroma:./chroma_db`. In a terminal, `reembed init` "
                "asks for it.",
            )
        return wanted
    url = wanted.url or _asked_store()
    collection = wanted.collection or _asked_collection(url)
    model = wanted.model or _asked_model()
    output = wanted.output
    if output is None and sys.stdout.isatty():
        output = _asked_file()
    return replace(wanted, url=url, collection=collection, model=model, output=output)


def _asked_store() -> str:
    from reembed.commands.nearby import stores_nearby
    from reembed.redaction import remember_url

    found = stores_nearby(Path.cwd(), os.environ)
    for one in found:
        remember_url(one.value)  # so that no password is shown
    with shown().held():
        if not found:
            return ask("store URL, e.g. chroma:./chroma_db or postgresql://host/database")
        return choose("store", [Choice(one.value, one.about) for one in found], "another URL")


def _asked_collection(url: str) -> str | None:
    """The chosen one; None where there is nothing to choose from."""
    from reembed.commands.discover import collections_in

    found, refused = collections_in(url)
    if not found or len(found) + len(refused) < 2:
        return None
    choices = [Choice(one.name, f"{one.count:,} records") for one in found]
    with shown().held():
        return choose("collection", choices)


def _asked_model() -> str:
    from reembed.commands.discover import draft_model
    from reembed.commands.nearby import models_in_reach

    found = models_in_reach(os.environ)
    with shown().held():
        chosen = choose(
            "new model", [Choice(one.value, one.about) for one in found],
            "another as PROVIDER:NAME",
        )  # fmt: skip
    draft_model(chosen)  # raises before more is asked
    return chosen


def _asked_file() -> Path:
    free = (f"move{number or ''}.yaml" for number in range(1_000))
    default = next((name for name in free if not Path(name).exists()), "move.yaml")
    with shown().held():
        return Path(ask("file to write", default))
