"""The manifest's section `watch`: what `reembed watch` looks at besides, and whom it tells."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from reembed.manifest.sections import ENV_NAME, Section

_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def seconds_of(duration: str) -> int:
    """`30s`, `5m`, `26h`, `8d` or `2w` in seconds. Raises ValueError."""
    if not re.fullmatch(r"[1-9][0-9]{0,4}[smhdw]", duration):
        raise ValueError("is a number above zero and s, m, h, d or w, e.g. 26h")
    return int(duration[:-1]) * _SECONDS[duration[-1]]


def _is_a_duration(value: str) -> str:
    seconds_of(value)
    return value


def _are_variables(value: list[str]) -> list[str]:
    for name in value:
        if not ENV_NAME.fullmatch(name):
            raise ValueError("holds names of environment variables, not addresses")
    return value


Duration = Annotated[str, AfterValidator(_is_a_duration)]


class Watch(Section):
    """What `reembed watch` looks at besides, and whom it tells."""

    by: str | None = Field(default=None, min_length=1)
    """a metadata key whose values are counted one by one, e.g. user_id"""
    max_drop: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 0.5
    """alert if more than this share of the most records of the last week is gone"""
    canaries: Annotated[int, Field(ge=0, le=1000)] = 8
    """known records of each collection that must find themselves"""
    max_latency: Duration | None = None
    """alert if the median search of a canary takes longer; default: it is only measured"""
    probe: bool = True
    """ask the models for the probe texts and the canaries, to see whether they drifted"""
    backups: str | None = None
    """the directory of snapshots (`reembed backup`) whose age is looked at"""
    backup_age: Duration = "26h"
    """alert if the last good backup is older"""
    drill_age: Duration = "8d"
    """alert if the last good drill is older"""
    on_empty: Literal["alert", "restore"] = "alert"
    """restore: put the last good backup in the place of a collection that is gone or empty"""
    unattended: bool = False
    """let `on_empty: restore` go on without a person's --yes"""
    run_age: Duration = "2d"
    """alert if a run has not ended, and nothing was done on it for so long"""
    metrics: str | None = None
    """a file that is written for Prometheus's textfile collector"""
    notify_env: Annotated[list[str], AfterValidator(_are_variables)] = Field(default_factory=list)
    """environment variables that hold Apprise URLs, which are told of alerts"""
    repeat: Duration = "24h"
    """an alert that stays is told again after so long"""
    report: Duration | None = None
    """send a report of counts every so often, e.g. 24h; default: none"""
