"""What to say when no connection comes about."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import psycopg

from reembed.errors import PreflightError, ReembedError, UnreachableError

_NO_DATABASE = re.compile(r'database "(?P<name>.+)" does not exist')
_REFUSED = re.compile(
    r"(password authentication failed|no password supplied|pg_hba\.conf|"
    r"(role|database) .* does not exist|permission denied|certificate|SSL .*required|"
    r"authentication failed|Peer authentication)",
    re.IGNORECASE,
)
"""What a server says when it answers and says no; libpq gives no SQLSTATE while connecting."""
_BUSY = re.compile(
    r"too many (clients|connections)|connection slots|is (starting up|shutting down|in recovery)"
)
_MAINTENANCE = "postgres"
"""A database that nearly every server has, and most roles may connect to."""


def no_connection(
    url: str, said: str, dial: Callable[[str], psycopg.Connection[Any]]
) -> ReembedError:
    """The error of a connection that did not come about.

    Args:
        url: without secrets.
        said: by libpq.
        dial: connects to another database of the same server.
    """
    if _REFUSED.search(said):
        return PreflightError(
            f"{url}: the server answers and refuses: {said}",
            "Check the role, the database's name and the password (PGPASSWORD or ~/.pgpass)."
            f"{_meant(url, said, dial)}",
        )
    if _BUSY.search(said):
        return UnreachableError(
            f"{url}: cannot connect now: {said}", "Wait a little, then run the same command again."
        )
    return UnreachableError(
        f"{url}: cannot connect: {said}",
        "Check the host and the port, and that the server runs; then run the same command again.",
    )


def _meant(url: str, said: str, dial: Callable[[str], psycopg.Connection[Any]]) -> str:
    """The URL with the database of nearly this name, where the server has one."""
    missing = _NO_DATABASE.search(said)
    if missing is None or unquote(urlsplit(url).path.removeprefix("/")) != missing["name"]:
        return ""
    try:
        with dial(_MAINTENANCE) as connection:
            rows = connection.execute(
                "SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate"
            ).fetchall()
    except psycopg.Error:
        return ""  # this role may not look
    close = difflib.get_close_matches(missing["name"], [name for (name,) in rows], n=1)
    if not close:
        return ""
    address, mark, query = url.partition("?")
    meant = f"{address.rpartition('/')[0]}/{quote(close[0])}{mark}{query}"
    return f" Did you mean `{meant}`?"
