"""Connections to Postgres: settings that keep texts stable, errors mapped, the database's identity.

Every connection of ours is named `reembed` and renders dates, intervals and numbers in one way,
whatever the role's defaults are, so that a row has the same text on every day. Secrets stay with
libpq (PGPASSWORD, PGPASSFILE, services), and what a URL holds is taken out of it at once.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, LiteralString, TypeAlias
from urllib.parse import unquote
from weakref import WeakKeyDictionary

import psycopg
from psycopg import errors, pq, sql
from psycopg.conninfo import conninfo_to_dict

from reembed.errors import (
    CollectionNotFoundError,
    LockedError,
    PreflightError,
    UnreachableError,
)
from reembed.redaction import remember_url
from reembed.redaction.known import remember_password_files
from reembed.redaction.urls import parted
from reembed.stores.postgres.pooler import refuse_transaction_pooler
from reembed.stores.postgres.refused import no_connection
from reembed.stores.postgres.search_path import fix_path

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]
Statement: TypeAlias = LiteralString | sql.SQL | sql.Composed
Parameters: TypeAlias = Sequence[Any] | Mapping[str, Any]

CONNECT_SECONDS = 10
SETTINGS = {
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "client_encoding": "UTF8",
    # A role's own limits are meant for applications, not for an export of an hour.
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "transaction_timeout": "0",
    "lock_timeout": "30s",
    "temp_buffers": "64MB",  # a shard that goes through a temporary table stays in memory
    "default_transaction_isolation": "read committed",
    # What a definition says, and where what is made lies, is not for the role's defaults to say.
    "quote_all_identifiers": "off",
    "default_tablespace": "",
    "synchronous_commit": "local",  # if it is off: what is journalled as done survives a crash
    # A row that a policy hides is an error then, as in pg_dump, not a row that is silently lost.
    "row_security": "off",
}
"""Session settings, of which an old server may lack some. The first six decide how values are
written as text."""
AS_TEXT = tuple(SETTINGS)[:6]
KEEPALIVES = {"keepalives_idle": "30", "keepalives_interval": "10", "keepalives_count": "6"}
"""So that nothing between us and the server takes a quiet connection for a dead one."""
MOST_DETAIL = 500
"""Characters of a DETAIL that are shown: it may hold a row, and so a vector."""
QUIET_SECONDS = 20.0
"""After which a connection is tried before it is used."""

_KEYS: WeakKeyDictionary[Connection, str] = WeakKeyDictionary()
"""The database that each open connection leads to, asked for once."""


@dataclass(frozen=True)
class Database:
    """Which database this is, whatever name and address it goes by.

    Attributes:
        system: `system_identifier` of the cluster; it is made anew with every initdb. "unknown"
            where the role may not read it.
        oid: of the database in it.
        name: of the database.
        role: that we are.
        server: version as Postgres says it, e.g. "18.4".
        extension: version of pgvector.
    """

    system: str
    oid: int
    name: str
    role: str
    server: str
    extension: str

    @property
    def key(self) -> str:
        """What every collection id of this database begins with."""
        return f"{self.system}/{self.oid}"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


_KEEPS_SESSIONS: set[str] = set()
"""URLs at which a session stays ours from one transaction to the next."""
_PARAMETERS: dict[str, dict[str, str]] = {}
"""A URL without its secrets to what was taken out of it, for later connections."""


def keep_secrets(url: str) -> str:
    """The URL without its secrets, which `connect` adds again. So no message, note or variable of a
    hook can hold them, and a password may hold a `/` that a URL may not."""
    remember_url(url)
    shown, found = parted(url)
    if found:
        _PARAMETERS[shown] = {name.lower(): unquote(value) for name, value in found}
    return shown


def connect(url: str, *, application: bool = False) -> Connection:
    """A connection in autocommit mode.

    Args:
        application: whether it is for what an application reads and writes, under its role's own
            limits and policies.

    Raises:
        UnreachableError: nothing answers there.
        PreflightError: the server refuses the role, its password or the database.
    """
    remember_password_files()
    secrets: dict[str, Any] = {**_PARAMETERS.get(url, {})}

    def dial(**instead: str) -> Connection:
        given = conninfo_to_dict(url)
        kept: dict[str, Any] = {
            name: value for name, value in KEEPALIVES.items() if name not in given
        }
        return psycopg.connect(
            url, autocommit=True, connect_timeout=CONNECT_SECONDS,
            application_name="reembed live" if application else "reembed", **kept,
            **secrets | instead,
        )  # fmt: skip

    try:
        connection = dial()
        if url not in _KEEPS_SESSIONS:
            _close_on_error(connection, lambda: refuse_transaction_pooler(connection, url, dial))
            _KEEPS_SESSIONS.add(url)
    except psycopg.OperationalError as error:
        said = first_line(error)
        raise no_connection(url, said, lambda name: dial(dbname=name)) from None
    except psycopg.Error as error:
        raise PreflightError(
            f"{url}: {first_line(error)}",
            "Write it as libpq reads it: postgresql://USER@HOST:5432/DATABASE, and after a ? its "
            "parameters, e.g. sslmode=require.",
        ) from None
    with mapped(url):
        if not application:
            connection.execute("SET statement_timeout = 0")  # first, for what follows it
        fix_path(connection)
        settings = {name: SETTINGS[name] for name in AS_TEXT} if application else SETTINGS
        connection.execute(
            "SELECT set_config(s.name, value, false) FROM unnest(%s::text[], %s::text[]) s "
            "(name, value) JOIN pg_settings p ON lower(p.name) = lower(s.name) WHERE s.name <> "
            "'synchronous_commit' OR setting = 'off'",
            [list(settings), list(settings.values())],
        )
    return connection


def _close_on_error(connection: Connection, work: Callable[[], None]) -> None:
    try:
        work()
    except BaseException:
        connection.close()
        raise


def is_alive(connection: Connection, quiet_since: float) -> bool:
    """Whether a connection can be used; it is asked if it has been quiet for long.

    Args:
        quiet_since: when it was used last, on the monotonic clock.
    """
    if connection.closed or connection.broken:
        return False
    idle = connection.info.transaction_status == pq.TransactionStatus.IDLE
    if not idle or time.monotonic() - quiet_since < QUIET_SECONDS:
        return True
    try:
        connection.execute("SELECT 1")
    except psycopg.OperationalError:
        connection.close()
        return False
    return True


def identify(connection: Connection, url: str) -> Database:
    """Which database this is. Raises PreflightError where pgvector is not installed in it."""
    row = fetch_one(
        connection,
        "SELECT oid, datname, current_user, current_setting('server_version') FROM pg_database "
        "WHERE datname = current_database()",
    )
    extension = fetch_one(
        connection, "SELECT extversion FROM pg_extension WHERE extname = 'vector'"
    )
    if extension is None:
        raise PreflightError(
            f"{url}: the extension pgvector is not installed in the database {row and row[1]!r}",
            "A database without it holds no vectors: is this the right one? Else run CREATE "
            "EXTENSION vector in it.",
        )
    assert row is not None, "a connection has a database"
    system = database_key(connection).partition("/")[0]
    return Database(system, row[0], row[1], row[2], str(row[3]).split()[0], extension[0])


def database_key(connection: Connection) -> str:
    """What every identity in this database begins with: cluster and oid. Neither a dump nor a
    database made from a template has that of its original."""
    if connection not in _KEYS:
        readable = fetch_one(
            connection, "SELECT has_function_privilege('pg_control_system()', 'EXECUTE')"
        )
        system = None
        if readable and readable[0]:  # asked first: an error would end the caller's transaction
            system = fetch_one(connection, "SELECT system_identifier FROM pg_control_system()")
        row = fetch_one(
            connection, "SELECT oid FROM pg_database WHERE datname = current_database()"
        )
        _KEYS[connection] = f"{system[0] if system else 'unknown'}/{row[0] if row else 0}"
    return _KEYS[connection]


def fetch_one(
    connection: Connection, query: Statement, parameters: Parameters = ()
) -> tuple[Any, ...] | None:
    """The first row, None without one."""
    return connection.execute(query, parameters or None).fetchone()


def fetch_all(
    connection: Connection, query: Statement, parameters: Parameters = ()
) -> list[tuple[Any, ...]]:
    """All rows."""
    return connection.execute(query, parameters or None).fetchall()


def beside_parameters(identifier: sql.Composable) -> sql.SQL:
    """A part of a statement that takes parameters, where a `%` of its own would be one."""
    return sql.SQL(identifier.as_string(None).replace("%", "%%"))


_NOT_NOW = (
    errors.ObjectNotInPrerequisiteState, errors.ObjectInUse, errors.CantChangeRuntimeParam,
)  # fmt: skip
"""What a thing in the database does not allow as it is, however often it is asked."""


@contextlib.contextmanager
def mapped(about: str) -> Iterator[None]:
    """Turn Postgres's errors into ours.

    Args:
        about: URL or table, put before what the server says.
    """
    try:
        yield
    except errors.UndefinedTable as error:
        raise CollectionNotFoundError(
            f"{about}: {_said(error)}",
            "Somebody dropped or renamed it meanwhile: run the same command again. Or correct "
            "that, if source.where or source.text_query names it.",
        ) from error
    except errors.InsufficientPrivilege as error:
        raise PreflightError(
            f"{about}: {_said(error)}",
            _hint(
                error, "Let its owner grant that (even to itself), or use a role that may do this."
            ),
        ) from error
    except errors.IdleInTransactionSessionTimeout as error:
        raise LockedError(
            f"{about}: Postgres has ended our transaction, since nothing came from us for longer "
            "than writers may be held",
            "Nothing was moved. Run the same command again.",
        ) from error
    except errors.QueryCanceled as error:
        raise UnreachableError(
            f"{about}: {_said(error)}",
            "Run the same command again; it resumes. A statement_timeout that ends a session of a "
            "run before it is set to 0 there is too short: ALTER ROLE .. SET makes it longer.",
        ) from error
    except (errors.LockNotAvailable, errors.DeadlockDetected) as error:
        raise LockedError(
            f"{about}: {_said(error)}: another session holds a lock on it",
            "Run the same command again; pg_stat_activity shows who holds it.",
        ) from error
    except (errors.DiskFull, errors.OutOfMemory, errors.ConfigurationLimitExceeded) as error:
        raise UnreachableError(
            f"{about}: {_said(error)}",
            _hint(error, "Free some space on the server and run again."),
        ) from error
    except errors.ProtocolViolation as error:  # psycopg takes it for a lost connection
        raise PreflightError(
            f"{about}: {_said(error)}",
            "If source.where holds a parameter such as $1, write the value out: it takes none.",
        ) from error
    except _NOT_NOW as error:  # psycopg takes them for a lost connection, too
        raise PreflightError(f"{about}: {_said(error)}", _hint(error)) from error
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        raise UnreachableError(
            f"{about}: the connection was lost: {_said(error)}",
            "Run the same command again; it resumes.",
        ) from error
    except errors.DependentObjectsStillExist as error:  # Postgres's own hint is to drop them, too
        raise PreflightError(
            f"{about}: {_said(error)}",
            "Drop what leads there, or create it again so that it leads to the live table; then "
            "run the same command again.",
        ) from error
    except psycopg.Error as error:
        raise PreflightError(f"{about}: {_said(error)}", _hint(error)) from error


def _said(error: psycopg.Error) -> str:
    """What Postgres says, with its DETAIL: which row, which object, who depends on it."""
    detail = error.diag.message_detail
    if not detail:
        return first_line(error)
    lines = "; ".join(line.strip() for line in detail.splitlines() if line.strip())
    cut = lines if len(lines) <= MOST_DETAIL else f"{lines[:MOST_DETAIL]}..."
    return f"{first_line(error)} (DETAIL: {cut})"


def _hint(error: psycopg.Error, ours: str = "") -> str:
    """Our hint, and Postgres's own HINT if it gives one."""
    hint = error.diag.message_hint
    return f"{ours} Postgres says: {hint}".strip() if hint else ours


def first_line(error: BaseException) -> str:
    """What Postgres says, without its context."""
    said = getattr(getattr(error, "diag", None), "message_primary", None) or error
    return next(iter(str(said).strip().splitlines()), type(error).__name__)
