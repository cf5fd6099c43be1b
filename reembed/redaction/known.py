"""Every secret that this process has read, by its value.

The environment is read once, by the names that secrets go by; what else is read (a key that a
manifest names, a password file, a URL, the configuration of an application) is told here by those
who read it.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from reembed.redaction.forms import is_secret_name, known_form
from reembed.redaction.urls import secrets_in_text, secrets_of

SHORTEST = 4
"""Characters of a value that is looked for; a shorter one would be found everywhere."""

_NAME_ENDS = ("file", "path", "dir", "sock", "id", "name", "env", "type", "version", "length",
              "limit", "url", "uri", "host", "provider")  # fmt: skip
_ORDINARY = frozenset(
    """
    chroma clean cosine docs done error export false fail failed host info inconclusive key keys
    live load loaded local localhost main manifest mem0 model name none null ollama openai pass
    passed password passwd plan postgres postgresql preflight public python qdrant query record
    records recall reembed refused report rollback root run secret shown source state status store
    swap swapped table target test text token true user username vector verified verify
    """.split()  # noqa: SIM905
)
"""Words of reembed's own output, and passwords that everybody knows: starring them would make
output unreadable and hide nothing."""


class _Known:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.values: dict[str, None] = {}  # in the order in which they came
        self.open: set[str] = set()
        self.version = 0
        self.environment: dict[str, str] | None = None


_known = _Known()


def remember(*values: str | None) -> None:
    """Star these values in all output from now on."""
    with _known.lock:
        for value in values:
            if not value:
                continue
            lines = value.splitlines()  # a key in PEM is written line by line
            for part in {value.strip(), *(line.strip() for line in lines)}:
                whole = part == value.strip()
                if len(part) >= (SHORTEST if whole else 16) and part not in _known.values:
                    _known.values[part] = None
                    _known.version += 1


def allow(*names: str | None) -> None:
    """Names that a manifest uses in the open: a weak password that is also a collection's name is
    not starred, since that would only break the name."""
    with _known.lock:
        found = {name.lower() for name in names if name} - _known.open
        if found:
            _known.open |= found
            _known.version += 1


def remember_url(url: str | None) -> None:
    """Star the secrets of a URL."""
    if url:
        remember(*secrets_of(url))


def read_variable(name: str) -> str:
    """The value of an environment variable that holds a secret, "" where it is not set."""
    value = os.environ.get(name, "").strip()
    remember(value)
    return value


def remember_in(data: Any, key: str = "") -> None:
    """Star what nested mappings and lists hold under the name, in the form or in the place of a
    secret: headers, an application's configuration, a store's record."""
    if isinstance(data, dict):
        for name, value in data.items():
            remember_in(value, str(name))
    elif isinstance(data, list | tuple):
        for value in data:
            remember_in(value, key)
    elif isinstance(data, str | int) and not isinstance(data, bool):
        text = str(data)
        if "://" in text:
            remember(*secrets_of(text), *secrets_in_text(text))
        elif is_secret_name(key) and not _is_reference(text):
            remember(text)
        if known_form(text) and "\n" not in text and " " not in text:
            remember(text)


def remember_password_files() -> None:
    """Star the passwords of libpq's password and service files, which it reads by itself."""
    home = Path("~").expanduser() if os.environ.get("HOME") else None
    named = os.environ.get("PGPASSFILE")
    for path in [Path(named)] if named else [home / ".pgpass"] if home else []:
        for line in _lines(path):
            fields = re.split(r"(?<!\\):", line, maxsplit=4)
            if len(fields) == 5 and not line.startswith("#"):
                remember(re.sub(r"\\(.)", r"\1", fields[4]))
    system = os.environ.get("PGSYSCONFDIR")
    services = [os.environ.get("PGSERVICEFILE"), home and home / ".pg_service.conf",
                system and Path(system) / "pg_service.conf"]  # fmt: skip
    for service in services:
        for line in _lines(Path(service)) if service else ():
            name, equals, value = line.partition("=")
            if equals and is_secret_name(name):
                remember(value.strip())


def _lines(path: Path) -> list[str]:
    try:
        if path.stat().st_size > 1 << 20:
            return []
        return path.read_text("utf-8", "replace").splitlines()
    except (OSError, ValueError):
        return []


def current() -> tuple[int, list[str], frozenset[str]]:
    """A number that changes with what is known, every secret, and the names that are not starred as
    weak secrets."""
    _read_environment()
    with _known.lock:
        return _known.version, [*_known.values], _ORDINARY | _known.open


def forget() -> None:
    """For tests: know nothing but the environment."""
    with _known.lock:
        _known.values.clear()
        _known.open.clear()
        _known.environment = None
        _known.version += 1


def _read_environment() -> None:
    """Look through the environment, again if it has changed."""
    now = os.environ.copy()
    if now == _known.environment:
        return
    for name, value in now.items():
        if "://" in value:
            remember(*secrets_of(value), *secrets_in_text(value))
        elif (_names_a_secret(name) and not _is_place(value)) or known_form(value[:5_000]):
            remember(value)
    _known.environment = now  # last, so that no other thread takes it for read too early


def _names_a_secret(name: str) -> bool:
    if name in ("PWD", "OLDPWD"):
        return False
    words = re.sub(r"[^a-z0-9]+", "_", name.lower()).split("_")
    if words[-1] in _NAME_ENDS:
        return False
    joined = "".join(words)
    return (
        is_secret_name(name)
        or words[-1] in ("key", "keys", "tokens", "auth")
        or any(part in joined for part in ("password", "secret", "apikey", "accesskey"))
        or "token" in words
    )


def _is_place(value: str) -> bool:
    """A path that exists, or a number or a switch: no secret, whatever it stands under."""
    if value.lower() in ("true", "false", "yes", "no", "on", "off"):
        return True
    try:
        return value.startswith(("/", "~", "./")) and Path(value).expanduser().exists()
    except (OSError, RuntimeError, ValueError):
        return False


def _is_reference(text: str) -> bool:
    return bool(re.fullmatch(r"\$\{?[A-Za-z_][A-Za-z0-9_]*\}?", text))


def distinct(values: Iterable[str]) -> list[str]:
    """Each once, the longest first, so that a secret within another does not leave a rest."""
    return sorted(dict.fromkeys(values), key=len, reverse=True)
