"""What is wrong with a manifest, in the manifest's own words."""

from __future__ import annotations

import difflib
import re
from typing import Any, get_args

from pydantic import BaseModel, ValidationError


def explain(
    error: ValidationError, data: Any, origin: str, manifest: type[BaseModel]
) -> tuple[str, str]:
    """The most telling validation error in the manifest's own words, and a hint.

    An unknown key comes first: misspelt, it is often why another one is missing. The alternatives
    of one value (`30` is neither `auto` nor a list) are one error.
    """
    problems: dict[str, list[Any]] = {}
    for problem in error.errors():
        path = _path(problem, data)
        problems.setdefault(".".join(path), []).append((path, problem))
    first = min(problems.values(), key=lambda group: group[0][1]["type"] != "extra_forbidden")
    path, problem = first[0]
    where = ".".join(path)
    tail = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    if problem["type"] == "extra_forbidden":
        known = sorted(_section(manifest, path[:-1]).model_fields)
        close = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
        hint = f"Did you mean {close[0]!r}?" if close else f"Known keys here: {', '.join(known)}."
        return f"{origin}: unknown key {where!r}{tail}", hint
    if problem["type"] == "missing":
        return f"{origin}: {where} is missing{tail}", _SEE_SCHEMA
    message = "; or: ".join(_message(problem) for _, problem in first)
    return f"{origin}: {where}: {message}{tail}", _closest_choice(first) or _SEE_SCHEMA


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
        except (KeyError, IndexError, TypeError):
            break
        path.append(str(part))
    return path


def _closest_choice(group: list[Any]) -> str | None:
    """`Did you mean 'cosine'?` for a misspelt choice."""
    value = group[0][1].get("input")
    choices = [
        choice
        for _, problem in group
        if problem["type"] == "literal_error"
        for choice in re.findall(r"'([^']*)'", problem["ctx"]["expected"])
    ]
    close = difflib.get_close_matches(value, choices, n=1) if isinstance(value, str) else []
    return f"Did you mean {close[0]!r}?" if close else None


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
