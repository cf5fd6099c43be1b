"""What is wrong with a manifest, in the manifest's own words."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

Places = Mapping[tuple[str, ...], tuple[int, int]]
"""Line and column of every key of a file, both from 1."""
MOST_TOLD = 20


def explain(
    error: ValidationError, data: Any, origin: str, manifest: type[BaseModel], places: Places
) -> tuple[str, str]:
    """Every validation error in the manifest's own words, a line each in the order of the file, and
    what may help: `m.yaml:7:3: unknown key 'model.nmae'; did you mean 'name'?`.

    The alternatives of one value (`30` is neither `auto` nor a list) are one error.

    Args:
        places: where the keys stand in the file; empty for a manifest that was made in Python.
    """
    problems: dict[tuple[str, ...], list[Any]] = {}
    for problem in error.errors():
        problems.setdefault(tuple(_path(problem, data)), []).append(problem)
    for path in [path for path, group in problems.items() if _is_misspelt(path, group, problems)]:
        del problems[path]
    told = sorted(
        (_place(path, places), _told(path, group, manifest))
        for path, group in problems.items()
        if not _is_other_choice(path, group, problems)
    )
    lines = [f"{_where(origin, place)}: {text}" for place, text in told[:MOST_TOLD]]
    if len(told) > MOST_TOLD:
        lines.append(f"and {len(told) - MOST_TOLD} more")
    return "\n".join(lines), _SEE_SCHEMA


def _is_other_choice(
    path: tuple[str, ...], group: list[Any], problems: Mapping[tuple[str, ...], Any]
) -> bool:
    """Whether it only says that a section could have been a word instead, where keys of the section
    are wrong."""
    inside = any(len(one) > len(path) and one[: len(path)] == path for one in problems)
    return inside and all(problem["type"] == "literal_error" for problem in group)


def _is_misspelt(
    path: tuple[str, ...], group: list[Any], problems: Mapping[tuple[str, ...], list[Any]]
) -> bool:
    """Whether a key is missing because it was given under another name, which is told."""
    if group[0]["type"] != "missing":
        return False
    beside = [
        other[-1] for other, found in problems.items()
        if other[:-1] == path[:-1] and found[0]["type"] == "extra_forbidden"
    ]  # fmt: skip
    return bool(difflib.get_close_matches(path[-1], beside, n=1, cutoff=0.5))


def _nearest(word: str, known: Sequence[str]) -> str | None:
    """The known word that is meant, if any is near: one of the same letters before all others."""
    close = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    return next((one for one in close if sorted(one) == sorted(word)), next(iter(close), None))


def _where(origin: str, place: tuple[int, int]) -> str:
    return f"{origin}:{place[0]}:{place[1]}" if place[0] else origin


def _place(path: tuple[str, ...], places: Places) -> tuple[int, int]:
    """Where a key stands, or the section that lacks it."""
    while path and path not in places:
        path = path[:-1]
    return places.get(path, (0, 0))


def _told(path: tuple[str, ...], group: list[Any], manifest: type[BaseModel]) -> str:
    where, kind = ".".join(path), group[0]["type"]
    if kind == "extra_forbidden":
        known = sorted(
            field.alias or name
            for name, field in _section(manifest, [*path[:-1]]).model_fields.items()
        )
        close = _nearest(path[-1], known)
        hint = f"did you mean {close!r}?" if close else f"known here: {', '.join(known)}"
        return f"unknown key {where!r}; {hint}"
    if kind == "missing":
        return f"{where} is missing"
    message = "; or: ".join(_message(problem) for problem in group)
    closest = _closest_choice(group)
    return f"{where}: {message}" + (f"; {closest}" if closest else "")


_SEE_SCHEMA = "See `reembed schema` for every key."


def _message(problem: Any) -> str:
    if problem["type"] in ("model_type", "dict_type"):
        return "should be a mapping of keys"
    if problem["type"] == "string_pattern_mismatch":
        return "should be letters, digits, dots, dashes and underscores, at most 100"
    return str(problem["msg"]).removeprefix("Value error, ").replace("Input should", "should")


def _path(problem: Any, data: Any) -> list[str]:
    """The keys that lead to a problem, without what pydantic adds for a type's alternatives."""
    path: list[str] = []
    for part in problem["loc"]:
        if problem["type"] == "missing" and part == problem["loc"][-1]:
            return [*path, str(part)]
        try:
            data = data[part]
        except KeyError:
            continue
        except (IndexError, TypeError):
            break
        path.append(str(part))
    return path


def _closest_choice(group: list[Any]) -> str | None:
    """`did you mean 'cosine'?` for a misspelt choice."""
    value = group[0].get("input")
    choices = [
        choice
        for problem in group
        if problem["type"] == "literal_error"
        for choice in re.findall(r"'([^']*)'", problem["ctx"]["expected"])
    ]
    close = difflib.get_close_matches(value, choices, n=1) if isinstance(value, str) else []
    return f"did you mean {close[0]!r}?" if close else None


def _section(model: type[BaseModel], path: list[str]) -> type[BaseModel]:
    """The section class that a path of keys leads to."""
    for part in path:
        annotation = model.model_fields[part].annotation
        candidates = [annotation, *get_args(annotation)]
        nested = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        if not nested:
            return model
        model = nested[0]
    return model
