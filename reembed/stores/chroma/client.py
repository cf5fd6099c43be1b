"""From a Chroma URL to a client: where it points, who may open it, and what its errors mean."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import chromadb
import httpx
from chromadb.api import ClientAPI
from chromadb.api.shared_system_client import SharedSystemClient
from chromadb.config import DEFAULT_DATABASE, DEFAULT_TENANT, Settings
from chromadb.errors import (
    AuthorizationError,
    ChromaAuthError,
    ChromaError,
    DuplicateIDError,
    InvalidArgumentError,
    InvalidDimensionException,
    NotFoundError,
    QuotaError,
)

from reembed.errors import (
    CollectionNotFoundError,
    DamagedStoreError,
    ManifestError,
    PreflightError,
    ReembedError,
    UnreachableError,
)
from reembed.redaction import read_variable
from reembed.stores.chroma import sqlite as chroma_sqlite

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 300.0
"""Chroma's own client waits for ever. A read that follows large writes may take many seconds while
the server compacts, hence minutes here, not seconds."""

_AGAIN = "Run again to resume."
_ON_DISK = ("compact", "purging logs", "apply logs", "disk I/O error")
"""Words of Chroma's errors in writing its own files; the cause is not among them."""
REFUSALS = (
    InvalidArgumentError,
    InvalidDimensionException,
    DuplicateIDError,
    QuotaError,
    TypeError,
    ValueError,
)
"""What Chroma, or its client before sending, raises for a request that it will never take."""


@dataclass(frozen=True)
class Address:
    """Where a Chroma URL points.

    Attributes:
        path: the folder of a local database, None for a server.
        host, port, tls: of a server.
        tenant, database: None means what the client's environment or key says (Cloud only).
        cloud: Chroma Cloud, so a token is needed.
    """

    path: Path | None = None
    host: str = ""
    port: int = 0
    tls: bool = False
    tenant: str | None = DEFAULT_TENANT
    database: str | None = DEFAULT_DATABASE
    cloud: bool = False


def parse(url: str) -> Address:
    """The address in a `chroma:` URL.

    `chroma:/path`, `chroma+http://host:port`, `chroma+https://host:port` (both with optional
    `?tenant=T&database=D`), `chroma+cloud://tenant/database`.

    Raises:
        ManifestError: the URL does not say where the database is.
    """
    scheme, _, rest = url.partition(":")
    if scheme == "chroma":
        return Address(path=Path(rest.removeprefix("//")).expanduser().resolve())
    parts = urlsplit(f"{scheme.removeprefix('chroma+')}:{rest}")
    if parts.username or parts.password:
        raise ManifestError(
            f"{scheme}://: a store URL holds no user or password",
            "Chroma's client reads CHROMA_CLIENT_AUTH_PROVIDER and CHROMA_CLIENT_AUTH_CREDENTIALS.",
        )
    if scheme == "chroma+cloud":
        return Address(
            **_cloud_endpoint(),
            tenant=parts.netloc or os.environ.get("CHROMA_TENANT"),
            database=parts.path.strip("/") or os.environ.get("CHROMA_DATABASE"),
            cloud=True,
        )
    try:
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ManifestError(f"{url}: {error}", "For example chroma+http://host:8000.") from None
    if not host:
        raise ManifestError(f"{url}: names no host", "For example chroma+http://host:8000.")
    tls = scheme == "chroma+https"
    query = parse_qs(parts.query)
    return Address(
        host=f"[{host}]" if ":" in host else host,
        port=port or (443 if tls else 8000),
        tls=tls,
        tenant=query.get("tenant", [DEFAULT_TENANT])[0],
        database=query.get("database", [DEFAULT_DATABASE])[0],
    )


def connect(address: Address, url: str) -> ClientAPI:
    """Open a client. A local database is only opened if that cannot upgrade or create anything.

    Over HTTP, the client's own settings apply: CHROMA_CLIENT_AUTH_PROVIDER and
    CHROMA_CLIENT_AUTH_CREDENTIALS make it send a token for a proxy to check.

    Raises:
        CollectionNotFoundError: there is no database in the folder.
        PreflightError: the database was made by another version of Chroma, or a key is missing.
        UnreachableError: nothing answers.
    """
    if address.path is not None:
        chroma_sqlite.check_openable(address.path)
        return _open_path(address.path)
    with mapped(url):
        _check_answers(address)
        client = _open_cloud(address) if address.cloud else _open_http(address)
    _bound_waiting(client)
    return client


def _open_path(path: Path) -> ClientAPI:
    # One process must not hold two Chroma systems on one folder (each would write its own index
    # files), so a client that the application opened already is shared, with its own settings.
    for system in list(SharedSystemClient._identifier_to_system.values()):
        settings = system.settings
        if settings.is_persistent and Path(settings.persist_directory).resolve() == path:
            return chromadb.PersistentClient(settings.persist_directory, settings)
    try:
        with mapped(f"chroma:{path}"):
            return chromadb.PersistentClient(path, Settings(anonymized_telemetry=False))
    except ReembedError:
        # A system that failed to start stays registered and would be handed out half-made.
        SharedSystemClient._identifier_to_system.pop(str(path), None)
        raise


def _open_http(address: Address) -> ClientAPI:
    return chromadb.HttpClient(
        host=address.host,
        port=address.port,
        ssl=address.tls,
        settings=Settings(anonymized_telemetry=False),
        tenant=address.tenant or DEFAULT_TENANT,
        database=address.database or DEFAULT_DATABASE,
    )


def _open_cloud(address: Address) -> ClientAPI:
    key = read_variable("CHROMA_API_KEY")
    if not key:
        raise PreflightError(
            "Chroma Cloud needs a key and CHROMA_API_KEY is not set",
            "Set CHROMA_API_KEY to a key of that tenant.",
        )
    # The key is passed on because CloudClient sends "None" when it finds it in the environment.
    return chromadb.CloudClient(
        tenant=address.tenant,
        database=address.database,
        api_key=key,
        settings=Settings(anonymized_telemetry=False),
        cloud_host=address.host,
        cloud_port=address.port,
        enable_ssl=address.tls,
    )


def _cloud_endpoint() -> dict[str, Any]:
    """CHROMA_CLOUD_HOST (`host`, `host:port` or `http://host:port`), else Chroma's own."""
    text = os.environ.get("CHROMA_CLOUD_HOST", "api.trychroma.com")
    parts = urlsplit(text if "://" in text else f"https://{text}")
    tls = parts.scheme == "https"
    return {"host": parts.hostname or "", "port": parts.port or (443 if tls else 80), "tls": tls}


def _check_answers(address: Address) -> None:
    """Ask for the heartbeat with a bound on the wait, which the client's constructor lacks."""
    scheme = "https" if address.tls else "http"
    httpx.get(
        f"{scheme}://{address.host}:{address.port}/api/v2/heartbeat",
        timeout=httpx.Timeout(ANSWER_SECONDS / 10, connect=CONNECT_SECONDS),
    )


def _sessions(client: ClientAPI) -> list[httpx.Client]:
    """The connections of an HTTP client and of the admin client inside it; none for a path."""
    servers = (getattr(client, "_server", None),
               getattr(getattr(client, "_admin_client", None), "_server", None))  # fmt: skip
    found = (getattr(server, "_session", None) for server in servers)
    return [session for session in found if isinstance(session, httpx.Client)]


def _bound_waiting(client: ClientAPI) -> None:
    for session in _sessions(client):
        session.timeout = httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)


def close(client: ClientAPI) -> None:
    """Release the client; a local database is closed with its last client in this process."""
    sessions = _sessions(client)
    cast(Any, client).close()
    for session in sessions:  # Chroma's close leaves them open
        session.close()


@contextmanager
def mapped(where: str) -> Iterator[None]:
    """Turn what Chroma's client raises into reembed's errors.

    Args:
        where: the URL or collection that the call is about, for the message.
    """
    try:
        yield
    except ReembedError:
        raise
    except httpx.HTTPError as error:
        raise UnreachableError(
            f"{where}: {type(error).__name__}: {error}",
            "Check that the server runs and the address is right; run again to resume.",
        ) from error
    except NotFoundError as error:
        raise CollectionNotFoundError(f"{where}: {error}") from error
    except (ChromaAuthError, AuthorizationError) as error:
        raise PreflightError(
            f"{where}: access refused: {error}", "Check CHROMA_API_KEY, tenant and database."
        ) from error
    except REFUSALS as error:
        if "Could not connect" in str(error):
            raise UnreachableError(f"{where}: {error}", "Check that the server runs.") from error
        raise PreflightError(f"{where}: Chroma refused: {error}") from error
    except ChromaError as error:
        if "already exists" in str(error):
            raise PreflightError(f"{where}: {error}") from error
        raise _failure(where, error) from error
    except BaseException as error:
        # The client raises bare Exception for an answer that is not Chroma's (a proxy's page), and
        # its Rust part a PanicException, which is no Exception at all.
        if type(error) is not Exception and type(error).__name__ != "PanicException":
            raise
        raise _failure(where, error) from error


def _failure(where: str, error: BaseException) -> ReembedError:
    """What a failure of Chroma's own comes from, as far as its words tell."""
    told = f"{where}: Chroma failed: {error}"
    if "disk is full" in str(error):
        return PreflightError(
            told, "Free some space where Chroma's database is, and run the same command again."
        )
    if "readonly database" in str(error):
        return PreflightError(
            told, "Give the user that Chroma runs as the right to write to its database."
        )
    if "hnsw segment reader" in str(error):
        return DamagedStoreError(
            told,
            "Chroma writes this index in place, and may have been killed while it did. If a run "
            "of reembed is building the collection, delete it with `reembed clean` and run again: "
            "what was paid for is kept. Of an old collection the run's export shards hold every "
            "record and vector; one that an application wrote needs a backup of its own.",
        )
    if any(word in str(error) for word in _ON_DISK):
        return UnreachableError(
            told, f"The disk of Chroma's database may be full: see that it has room. {_AGAIN}"
        )
    return UnreachableError(told, _AGAIN)
