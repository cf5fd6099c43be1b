"""`${VAR}` and `${VAR:-default}` in a manifest, filled in from the environment.

Hooks and the text template keep theirs: a shell expands the one, the records the other. Nothing
that is named like a secret is filled in: a manifest is copied into the run directory as resolved.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from reembed.errors import ManifestError
from reembed.redaction.forms import is_secret_name

_VARIABLE = re.compile(r"\$(?:(\$)(?=\{)|\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\})")
_THEIR_OWN = {("text",), ("swap", "before"), ("swap", "after")}


def fill(data: Any, origin: str, environment: Mapping[str, str]) -> Any:
    """`data` with every variable replaced by its value, `$${` by `${`.

    Raises:
        ManifestError: a variable is not set and has no default, or is named like a secret.
    """
    return _fill(data, origin, environment, ())


def _fill(data: Any, origin: str, environment: Mapping[str, str], path: tuple[str, ...]) -> Any:
    if isinstance(data, dict):
        return {
            key: value if (*path, key) in _THEIR_OWN
            else _fill(value, origin, environment, (*path, str(key)))
            for key, value in data.items()
        }  # fmt: skip
    if isinstance(data, list):
        return [
            _fill(value, origin, environment, (*path, str(index)))
            for index, value in enumerate(data)
        ]
    if isinstance(data, str) and "${" in data:
        where = f"{origin}: {'.'.join(path)}"
        filled = _VARIABLE.sub(lambda found: _value(found, where, environment), data)
        return _typed(filled) if _VARIABLE.fullmatch(data) else filled
    return data


def _typed(text: str) -> Any:
    """A value that is a variable and nothing else: a number or a truth value if it reads as one."""
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        return text
    return value if isinstance(value, int | float) else text


def _value(found: re.Match[str], where: str, environment: Mapping[str, str]) -> str:
    escaped, name, default = found.groups()
    if escaped:
        return "$"
    if is_secret_name(name):
        raise ManifestError(
            f"{where}: ${{{name}}} is named like a secret, and a manifest holds none",
            "Clients read their keys from the environment themselves: name the variable in "
            "model.api_key_env, or use the client's own, such as PGPASSWORD.",
        )
    value = environment.get(name) or default
    if value is None:
        raise ManifestError(
            f"{where}: the environment variable {name} is not set",
            f"Set it, or give a default: ${{{name}:-value}}.",
        )
    return value
