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
_ENCRYPTED = re.compile(r"pg_hba\.conf.*no encryption", re.DOTALL)
_REFUSED = {
    "no password supplied":
        "Set PGPASSWORD, or write the password into ~/.pgpass (a file that only you may read: "
        "chmod 600).",
    "password authentication failed":
        "The password is taken from PGPASSWORD, else from ~/.pgpass: set the one of this role "
        "there.",
    r"pg_hba\.conf":
        "Ask who runs the server to let this role in, from this address, in its pg_hba.conf.",
    "not permitted to log in":
        "Use a role that may log in, or let an administrator allow it: ALTER ROLE .. LOGIN.",
    "not currently accepting connections":
        "Somebody has closed this database: ALTER DATABASE .. ALLOW_CONNECTIONS true opens it.",
    "permission denied for database":
        "Use a role that may connect, or let it be granted: GRANT CONNECT ON DATABASE .. TO ..",
    "server does not support SSL":
        "Take sslmode out of the URL (and PGSSLMODE), if nobody can listen on the way to it.",
    "root certificate|certificate verify failed|server certificate":
        "Name the file of the certificates to trust with sslrootcert=FILE in the URL. "
        "sslmode=require encrypts without checking who answers.",
    r"invalid (\w+ )*(value|number)|definition of service|service file|connection option"
    r"|could not match \d+|(certificate|private key) file":
        "Correct it in the URL, or in the variable of the environment that sets it (PGPORT, "
        "PGSSLMODE, PGSERVICE and others).",
    "(role|database) .* does not exist|permission denied|authentication failed|certificate"
    "|SSL .*required":
        "Check the role, the database's name and the password (PGPASSWORD or ~/.pgpass).",
}  # fmt: skip
"""What is said, by a server or by libpq itself, when no connection will ever come about as things
are, with what to do; libpq gives no SQLSTATE while connecting."""
_BUSY = re.compile(
    r"too many (clients|connections)|connection slots|is (starting up|shutting down|in recovery)"
    "|not yet accepting connections"
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
    known = (_REFUSED[words] for words in _REFUSED if re.search(words, said, re.IGNORECASE))
    hint = next(known, None)
    if hint is not None:
        if _ENCRYPTED.search(said):
            hint += " Where it lets in encrypted connections only, add sslmode=require to the URL."
        _, answered, told = said.rpartition("FATAL:")
        refused = "the server answers and refuses" if answered else "cannot connect"
        return PreflightError(
            f"{url}: {refused}: {told.strip()}", f"{hint}{_meant(url, said, dial)}"
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
