"""Which alerts are new, which stand, which are over, and the letters that tell of it.

A letter is written down before it is sent, and waits until everybody has got it.
"""

from __future__ import annotations

import time
from collections.abc import Container, Sequence

from reembed.commands.watch.findings import Finding
from reembed.commands.watch.memory import Letter, Memory, Standing
from reembed.commands.watch.result import WatchResult
from reembed.manifest import Watch
from reembed.manifest.watching import seconds_of
from reembed.redaction import redacted

ALWAYS_LOOKED_AT = ("reachable", "clock", "memory", "backup", "drill", "run", "metrics")
"""Checks that say something whether the store answers or not."""
NOT_SENT = ("notify",)
"""That nobody can be reached is told here, and in the exit code."""
LINES = 20
LONGEST = 3_000
"""Of a body, in lines and characters; some messengers refuse more than 4,096."""


def note_alerts(memory: Memory, result: WatchResult, settings: Watch) -> Letter | None:
    """Bring the standing alerts up to date. Returns the letter about what changed, if anything did;
    nobody has it yet."""
    now = result.t
    wrong = {one.key: one for one in result.findings if one.status != "ok"}
    wrong = {key: one for key, one in wrong.items() if one.check not in NOT_SENT}
    new, again = [], []
    for key, finding in wrong.items():
        before = memory.standing.get(key)
        if before is None or before.status != finding.status:
            new.append(finding)
            memory.standing[key] = Standing(now, now, finding.status, _sent(finding))
        elif not 0 <= now - before.told < seconds_of(settings.repeat):
            again.append(finding)
            before.told, before.message = now, _sent(finding)
    over = {key: memory.standing.pop(key) for key in _over(memory, result, wrong.keys())}
    if not new and not again and not over:
        return None
    return _letter(result, now, new, again, over)


def _over(memory: Memory, result: WatchResult, wrong: Container[str]) -> list[str]:
    """Those that were looked at again and are no more: a watch by URL may look at some collections
    alone."""
    if any(finding.check == "watch" for finding in result.findings):
        return []
    unseen = _unseen(result)
    looked = {*(one.name for one in result.collections), *result.gone}
    others = memory.collections.keys() - looked if result.reached else set()
    return [
        key for key in memory.standing
        if key not in wrong
        and (check := key.partition("/")[0]) not in unseen
        and not any(f"{key}/".startswith(f"{check}/{name}/") for name in others)
        and (result.reached or check in ALWAYS_LOOKED_AT)
    ]  # fmt: skip


def _unseen(result: WatchResult) -> set[str]:
    """Checks of which nothing is known: what they look at could not be reached, or their turn is
    after this message."""
    found = set[str]()
    for finding in result.findings:
        if finding.check == "model_reachable":
            found |= {"model", "dimension"}
        elif finding.check in ("gone", "empty"):
            found.add("mend")
        elif finding.key == "backup":  # of the directory, not of a collection
            found |= {"backup", "drill"}
    return found


def _letter(
    result: WatchResult, now: float, new: Sequence[Finding], again: Sequence[Finding],
    over: dict[str, Standing],
) -> Letter:  # fmt: skip
    lines = [f"{one.status.upper()} {_sent(one)}" for one in new]
    lines += [f"STILL {one.status.upper()} {_sent(one)}" for one in again]
    lines += [f"OVER {standing.message}" for standing in over.values()]
    alerts = [one for one in (*new, *again) if one.status == "alert"]
    if alerts:
        title, kind = _counted(len(alerts), "alert"), "failure"
    elif new or again:
        title, kind = _counted(len(new) + len(again), "warning"), "warning"
    else:
        title, kind = "over", "success"
    return Letter(now, f"reembed: {result.name}: {title}", body(lines), kind, [])


def _counted(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def _sent(finding: Finding) -> str:
    where = f"[{finding.collection}] " if finding.collection else ""
    return redacted(f"{finding.check}: {where}{finding.sent or finding.message}")


def report(memory: Memory, result: WatchResult) -> Letter:
    """How many records there are, and what stands: no word of any document."""
    lines = [
        f"[{one.name}] {one.count:,} records ({one.count - result.good.get(one.name, one.count):+,}"
        f" to the most of the week)" for one in result.collections
    ]  # fmt: skip
    if not result.reached:
        lines.append("the store could not be looked at")
    lines += [
        f"[{one.collection}] last good backup {_day(one.good) if one.good else 'none'}, "
        f"last good drill {_day(one.drilled) if one.drilled else 'none'}"
        for one in result.backups
    ]
    lines += [
        f"{standing.status.upper()} since {_day(standing.since)}: {standing.message}"
        for standing in memory.standing.values()
    ]
    if not memory.standing:
        lines.append("all is well")
    title = f"reembed: {result.name}: report of {_day(result.t)}"
    return Letter(result.t, title, body(lines), "info", [])


def is_due(memory: Memory, settings: Watch, now: float) -> bool:
    """Whether a report is to be made, by a clock that may have jumped."""
    return settings.report is not None and not (
        0 <= now - memory.reported < seconds_of(settings.report)
    )


def body(lines: Sequence[str]) -> str:
    """The lines, as many as everybody takes."""
    shown, size = [], 0
    for line in lines[:LINES]:
        size += len(line) + 1
        if size > LONGEST:
            break
        shown.append(line)
    left = len(lines) - len(shown)
    if left:
        shown.append(f"and {left} more: `reembed watch` lists them")
    return "\n".join(shown)


def _day(t: float) -> str:
    return time.strftime("%F %H:%M", time.localtime(t))
