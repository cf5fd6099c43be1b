"""Letters go out through Apprise, to every address that the environment names.

What somebody did not take stays written down, with the name of the variable and never the address,
and is sent again in the next cycle, everything that waits for them in one message.
"""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from reembed.commands.watch.alerts import body
from reembed.commands.watch.findings import Finding, alert, of_error
from reembed.commands.watch.memory import Letter, Memory
from reembed.errors import MissingExtraError, UnreachableError
from reembed.manifest.adapters import missing_extra
from reembed.redaction import remember

EXTRA = "notify"
TRIES = 3
WAIT = 1.0
"""Seconds before the second try; doubled before the third."""

APPRISE_URL = (
    "Set the variable to an Apprise URL, e.g. mailtos://... or tgram://...: https://appriseit.com "
    "lists them."
)

Save = Callable[[], None]


class Target(Protocol):
    """Somebody who is told."""

    def __call__(self, title: str, body: str, kind: str) -> bool:
        """Whether the message was taken."""
        ...


def targets_of(variables: Sequence[str]) -> tuple[dict[str, Target], list[Finding]]:
    """Whom the variables name, by `VARIABLE#place`, and what is wrong with them.

    A variable holds one Apprise URL or several, between blanks.
    """
    found: dict[str, Target] = {}
    wrong: list[Finding] = []
    for variable in variables:
        urls = os.environ.get(variable, "").split()
        if not urls:
            wrong.append(
                alert(
                    "notify", "", f"nobody is told of alerts: {variable} is not set",
                    APPRISE_URL, exit_code=5,
                    subject=f"{variable}#1",
                )
            )  # fmt: skip
        for place, url in enumerate(urls, 1):
            remember(url)
            name = f"{variable}#{place}"
            try:
                found[name] = _opened(url)
            except MissingExtraError as error:
                wrong.append(of_error("notify", "", error, subject=name))
            except ValueError:
                wrong.append(
                    alert(
                        "notify", "", f"{name} is not a URL that Apprise knows",
                        APPRISE_URL, exit_code=5, subject=name,
                    )
                )  # fmt: skip
    return found, wrong


def _opened(url: str) -> Target:
    logger = logging.getLogger("apprise")  # it logs addresses, which are secrets
    logger.propagate = False
    logger.addHandler(logging.NullHandler())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of modules that Python gives up
        try:
            import apprise
        except ImportError as error:
            raise missing_extra("notifications need", error, EXTRA) from error
        one: Any = apprise.Apprise()
        if not one.add(url):
            raise ValueError("no Apprise URL")

    def send(title: str, body: str, kind: str) -> bool:
        return bool(one.notify(body=body, title=title, notify_type=kind))

    return send


def deliver(
    memory: Memory, targets: dict[str, Target], everybody: Sequence[str], save: Save
) -> list[Finding]:
    """Send what waits. Returns an alert for everybody who did not take it.

    Args:
        everybody: who is to be told, whether they can be or not. Who is no more among them is
            forgotten.
        save: called after each that got something, so that they do not get it twice.
    """
    variables = {name.partition("#")[0] for name in everybody}
    open_now = {name.partition("#")[0] for name in targets}

    def stays(name: str) -> bool:
        variable = name.partition("#")[0]
        return name in everybody or (variable in variables and variable not in open_now)

    for letter in memory.outbox:
        letter.pending = [name for name in letter.pending if stays(name)]
    memory.outbox = [letter for letter in memory.outbox if letter.pending]
    waiting = sorted({name for letter in memory.outbox for name in letter.pending})
    wrong = []
    for name in waiting:
        letters = [letter for letter in memory.outbox if name in letter.pending]
        target = targets.get(name)
        if target is not None and _sent(target, letters):
            for letter in letters:
                letter.pending.remove(name)
            memory.outbox = [letter for letter in memory.outbox if letter.pending]
            save()
            continue
        for letter in letters:
            letter.tries += 1
        first = time.strftime("%F %H:%M", time.localtime(letters[0].t))
        wrong.append(
            of_error(
                "notify", "",
                UnreachableError(
                    f"{name} did not take {len(letters)} messages, the first of {first}: "
                    f"{letters[-1].title}",
                    "They are kept, and sent in the next cycle.",
                ),
                subject=name,
            )
        )  # fmt: skip
    return wrong


def _sent(target: Target, letters: Sequence[Letter]) -> bool:
    """Send letters as one message, tried a few times."""
    newest = letters[-1]
    title, text, kind = newest.title, newest.body, newest.kind
    if len(letters) > 1:
        title = f"{title} (and {len(letters) - 1} before that could not be sent)"
        kind = "failure" if any(one.kind == "failure" for one in letters) else kind
        stamp = [time.strftime("%F %H:%M", time.localtime(one.t)) for one in letters]
        text = body([
            f"{when} {line}"
            for when, one in reversed([*zip(stamp, letters, strict=True)])
            for line in one.body.split("\n")
        ])  # fmt: skip
    for attempt in range(TRIES):
        if attempt:
            time.sleep(WAIT * 2 ** (attempt - 1))
        try:
            if target(title, text, kind):
                return True
        except Exception as error:  # whatever a plugin of Apprise's raises, the letter stays
            logging.getLogger(__name__).debug("a message was not taken: %s", type(error).__name__)
    return False
