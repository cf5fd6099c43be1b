"""From a Chroma address to a client: who may open it, and that what answers is a Chroma we know."""

from __future__ import annotations

import contextlib
import ctypes
import json
import re
import resource
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import chromadb

from reembed.errors import PreflightError, ReembedError
from reembed.redaction import read_variable
from reembed.run.disk import make_private_dir
from reembed.stores.chroma import sqlite as chroma_sqlite
from reembed.stores.chroma.address import (
    API_PATH,
    DEFAULT_DATABASE,
    DEFAULT_TENANT,
    Address,
    parse,
)
from reembed.stores.chroma.failures import ENOUGH_FILES, NO_CHROMA, mapped, of_status
from reembed.stores.chroma.library import LocalClient, local, may_open, prepare
from reembed.stores.chroma.sqlite_process import beside

if TYPE_CHECKING:
    import httpx
    from chromadb.api import ClientAPI
    from chromadb.config import Settings

__all__ = ["Address", "close", "connect", "mapped", "parse"]

OWN_USERS = 2
"""References that one client holds to the part of Chroma that clients of a folder share."""
CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 300.0
"""Chroma's own client waits for ever. A read that follows large writes may take many seconds while
the server compacts, hence minutes here, not seconds."""
M_PERTURB = -6
"""The number of that setting in glibc's malloc.h."""
ZEROES = 0xFF
"""What it is set to: what is handed out is filled with the complement."""
OLDEST = (1, 0)
"""The first server that speaks this client's API. Its successors all say 1.0.0, whatever they are:
what else they offer is seen when it is asked for (`names.by_id`)."""


def connect(address: Address, url: str) -> ClientAPI:
    """Open a client. A local database is only opened if that cannot upgrade or create anything.

    Over HTTP, the client's own settings apply: CHROMA_CLIENT_AUTH_PROVIDER and
    CHROMA_CLIENT_AUTH_CREDENTIALS make it send a token, or user and password.

    Raises:
        CollectionNotFoundError: there is no database in the folder.
        PreflightError: the database or the server is of another version of Chroma, a key is missing
            or refused, or what answers is no Chroma.
        UnreachableError: nothing answers.
    """
    if address.path is not None:
        beside.begin()
        prepare()
        chroma_sqlite.check_openable(address.path)
        return _open_path(address)
    with mapped(url), warnings.catch_warnings():
        # Chroma hands the CA file's name on to httpx, which would rather have a context.
        warnings.filterwarnings("ignore", ".*verify=<str>.*", DeprecationWarning)
        if address.cloud:
            _cloud_key()
        _check_answers(address, url)
        client = _open_cloud(address) if address.cloud else _open_http(address)
    _bound_waiting(client)
    return client


def make_database(url: str) -> None:
    """Make an empty database in the folder of a path URL, where there is none."""
    path = parse(url).path
    if path is None or (path / chroma_sqlite.FILE).exists():
        return
    make_private_dir(path)
    with mapped(url):
        close(chromadb.PersistentClient(path, _settings()))


def _open_path(address: Address) -> ClientAPI:
    path = cast(Path, address.path)
    _allow_files()
    _clear_heap()
    if may_open():
        # The package's own client says what is wrong.
        with contextlib.suppress(ReembedError), mapped(f"chroma:{path}"):
            return cast("ClientAPI", LocalClient(address, lambda: _open_whole(address)))
    return _open_whole(address)


def _open_whole(address: Address) -> ClientAPI:
    """The client of Chroma's package."""
    from chromadb.api.shared_system_client import SharedSystemClient

    import reembed.stores.chroma.function  # noqa: F401 - registers it, which collections may name

    path = cast(Path, address.path)
    place: Any = {"tenant": address.tenant, "database": address.database}
    # One process must not hold two Chroma systems on one folder (each would write its own index
    # files), so a client that the application opened already is shared, with its own settings.
    for system in list(SharedSystemClient._identifier_to_system.values()):
        settings = system.settings
        if settings.is_persistent and Path(settings.persist_directory).resolve() == path:
            with mapped(f"chroma:{path}"):
                return chromadb.PersistentClient(settings.persist_directory, settings, **place)
    try:
        with mapped(f"chroma:{path}"):
            settings = _settings()
            return chromadb.PersistentClient(path, settings, **place)
    except ReembedError:
        # A system that failed to start stays registered and would be handed out half-made.
        SharedSystemClient._identifier_to_system.pop(str(path), None)
        raise


def _allow_files() -> None:
    """Let this process open as many files as it may.

    Chroma keeps a fifth of the soft limit of open files as indexes open, 204 of the usual 1,024. It
    drops more than that, and then fails to open those again that it has not written out yet
    ("Nothing found on disk").
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH_FILES if hard == resource.RLIM_INFINITY else min(ENOUGH_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _clear_heap() -> None:
    """Let the C library hand out zeroed memory.

    Chroma writes the files of a new index (`data_level0.bin`, `length.bin`) from memory that it has
    not filled: what this process had there before, texts and keys in use among it, would be kept in
    the folder and in every copy of it. Of other C libraries than glibc nothing can be asked.
    """
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).mallopt(M_PERTURB, ZEROES)


def _settings() -> Settings:
    from chromadb.config import Settings

    return Settings(anonymized_telemetry=False)


def _http_settings(address: Address) -> Settings:
    settings = _settings()
    settings.chroma_server_ssl_verify = None if address.verify is True else address.verify
    return settings


def _open_http(address: Address) -> ClientAPI:
    # The whole address, because Chroma takes a host that begins with "http" for one already.
    return chromadb.HttpClient(
        host=f"{address.base}{API_PATH}" if address.prefix else address.base,
        port=address.port,
        ssl=address.tls,
        headers=dict(address.headers or {}),
        settings=_http_settings(address),
        tenant=address.tenant or DEFAULT_TENANT,
        database=address.database or DEFAULT_DATABASE,
    )


def _cloud_key() -> str:
    key = read_variable("CHROMA_API_KEY")
    if not key:
        raise PreflightError(
            "Chroma Cloud needs a key and CHROMA_API_KEY is not set",
            "Set CHROMA_API_KEY to a key of that tenant.",
        )
    return key


def _open_cloud(address: Address) -> ClientAPI:
    # The key is passed on because CloudClient sends "None" when it finds it in the environment.
    client = chromadb.CloudClient(
        tenant=address.tenant,
        database=address.database,
        api_key=_cloud_key(),
        settings=_http_settings(address),
        cloud_host=address.host,
        cloud_port=address.port,
        enable_ssl=address.tls,
    )
    for session in _sessions(client):
        session.headers.update(address.headers or {})
    return client


def _check_answers(address: Address, url: str) -> None:
    """Look that there is a Chroma of a version we know and that it lets us in, with a bound on the
    wait, which the client's constructor lacks (and which leaves open what it opened, if it fails).
    """
    import httpx

    with httpx.Client(
        verify=address.verify,
        headers=_with_key(address),
        timeout=httpx.Timeout(ANSWER_SECONDS / 10, connect=CONNECT_SECONDS),
    ) as asking:
        answer = asking.get(f"{address.base}{API_PATH}/version")
        version = _version(answer)
        if answer.status_code in (404, 410):  # 0.5 and older have another API
            version = _version(asking.get(f"{address.base}/api/v1/version"))
        if answer.status_code in (401, 403):  # perhaps for this one call alone
            answer = asking.get(f"{address.base}{API_PATH}/auth/identity")
            if answer.status_code in (401, 403):
                raise of_status(url, answer.status_code, answer.text)
    if version is None:
        if answer.status_code not in (404, 410):
            if answer.is_redirect:
                raise of_status(url, answer.status_code, answer.headers.get("location", ""))
            return
        raise PreflightError(
            f"{url}: no Chroma server answers at {address.base} (status {answer.status_code} for "
            f"{API_PATH}/version)",
            NO_CHROMA,
        )
    if version < OLDEST:
        told = ".".join(str(part) for part in version)
        raise PreflightError(
            f"{url}: the server is Chroma {told}; this one works with 1.0 to 1.5",
            "Copy its folder while it is stopped, and serve the copy with a newer Chroma "
            "(`chroma run --path COPY`, chromadb 1.0 or newer): opening upgrades it for good, so "
            "the application needs the newer Chroma too.",
        )


def _with_key(address: Address) -> dict[str, str]:
    """The headers that the client will send, with those of its authentication."""
    from chromadb.auth import ClientAuthProvider
    from chromadb.config import System

    headers = dict(address.headers or {})
    settings = _http_settings(address)
    if address.cloud:
        headers |= {"X-Chroma-Token": key} if (key := read_variable("CHROMA_API_KEY")) else {}
    elif settings.chroma_client_auth_provider:
        provider = System(settings).instance(cast(Any, ClientAuthProvider))
        headers |= {name: v.get_secret_value() for name, v in provider.authenticate().items()}
    return headers


def _version(answer: httpx.Response) -> tuple[int, ...] | None:
    """The version that a server tells, such as (1, 0, 0); None if this is no Chroma's answer."""
    try:
        text = json.loads(answer.text) if answer.is_success else None
    except ValueError:
        return None
    found = re.match(r"\d+(?:\.\d+)*", text) if isinstance(text, str) else None
    return tuple(int(part) for part in found[0].split(".")) if found else None


def _sessions(client: ClientAPI) -> list[httpx.Client]:
    """The connections of an HTTP client and of the admin client inside it; none for a path."""
    if local(client):
        return []
    import httpx

    servers = (getattr(client, "_server", None),
               getattr(getattr(client, "_admin_client", None), "_server", None))  # fmt: skip
    found = (getattr(server, "_session", None) for server in servers)
    return [session for session in found if isinstance(session, httpx.Client)]


def _bound_waiting(client: ClientAPI) -> None:
    import httpx

    for session in _sessions(client):
        session.timeout = httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)


def rest(client: ClientAPI, folder: Path) -> None:
    """Close the indexes that Chroma keeps open in this process, four files and some megabytes for
    each collection, and go on. What another client in this process works with is left alone. No
    call may be under way."""
    if (ours := local(client)) is not None:
        if ours.rest():
            return
        client = ours.whole()
    from chromadb.api.shared_system_client import SharedSystemClient

    users = SharedSystemClient._identifier_to_refcount.get(str(folder), 0)
    if users == OWN_USERS:
        server = cast(Any, client)._server
        server.stop()
        server.start()


def close(client: ClientAPI) -> None:
    """Release the client; a local database is closed with its last client in this process."""
    sessions = _sessions(client)
    cast(Any, client).close()
    for session in sessions:  # Chroma's close leaves them open
        session.close()
