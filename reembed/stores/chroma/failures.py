"""What an error of Chroma's client means: refused, out of reach, or damaged.

Only what may pass by itself is `UnreachableError` (exit code 7, "run again"). What the server will
never do, however often it is asked, is refused (5), with what to do instead.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
    CollectionGoneError,
    DamagedStoreError,
    OutOfMemoryError,
    PreflightError,
    ReembedError,
    UnreachableError,
)
from reembed.stores.chroma.damaged import damage

ENOUGH_FILES = 65_536
"""Open files that are enough for a folder of thousands of collections."""
_AGAIN = "Run again to resume."
_ON_DISK = ("compact", "purging logs", "apply logs", "disk I/O error")
"""Words of Chroma's errors in writing its own files; the cause is not among them."""
_ON_MEMORY = ("out of memory", "Cannot allocate memory", "memory allocation", "(code: 7)",
              "(code: 3082)", "(code: 5386)")  # fmt: skip
"""Words of a library, and SQLite's codes, where a process may have no more memory."""
_ON_INDEX = ("hnsw segment reader", "Error getting embedding", "Error finding id")
"""Words of Chroma's where it cannot read the files of an index."""
REFUSALS = (
    InvalidArgumentError,
    InvalidDimensionException,
    DuplicateIDError,
    QuotaError,
    TypeError,
    ValueError,
)
"""What Chroma, or its client before sending, raises for a request that it will never take."""
NOT_TAKEN = "Failed to deserialize the JSON body"
"""What a server says of a request that its version does not know."""
TOO_LARGE = (
    "A request of at most 20 MB is more than the server or its proxy takes: raise "
    "max_payload_size_bytes in the server's configuration, or the proxy's limit."
)
NO_DATABASE = (
    "Name one that is there by ?database= and ?tenant= in the URL, or leave both out for "
    "default_database of default_tenant. A new one is made by chromadb.AdminClient's "
    "create_database."
)
PASSING = frozenset({408, 425, 429})
"""HTTP statuses below 500 that say nothing of the next time."""
AUTH_HINT = (
    "A token: CHROMA_CLIENT_AUTH_PROVIDER=chromadb.auth.token_authn.TokenAuthClientProvider and "
    "CHROMA_CLIENT_AUTH_CREDENTIALS=the token. A user: chromadb.auth.basic_authn."
    "BasicAuthClientProvider and user:password. Another header: source.headers_env names it and "
    "the environment variable that holds it. Chroma Cloud: CHROMA_API_KEY."
)
NO_CHROMA = (
    "Check host, port and path: behind a proxy the path goes into the URL, as in "
    "chroma+https://host/chroma. Chroma itself must be 1.0 or newer."
)


def _too_few_files(words: str) -> str:
    """The way on where Chroma may have closed an index that it had not written out."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if "Nothing found on disk" not in words or not 0 <= limit < ENOUGH_FILES:
        return ""
    return (
        f"Chroma keeps {limit // 5:,} indexes open here, a fifth of the files that this process "
        "may open, and fails on more: with more collections than that, allow five times as many "
        "files (`ulimit -n`, systemd's LimitNOFILE) and run the same command again. Otherwise: "
    )


def damaged_index(told: str, place: str, folder: Path | None = None) -> DamagedStoreError:
    """The error of an index whose files are not as Chroma wrote them.

    Args:
        told: what was found, or what Chroma says.
        place: the collection's name.
        folder: of the index, where it can be seen.
    """
    hint = (
        f"Running again changes nothing. The index lies in {folder}: put this folder back from a "
        "backup. Without one, stop what has the database open, move this folder away, and run the "
        "same command again: the texts lie in chroma.sqlite3, and all of them are embedded. Only "
        "the old vectors are lost."
        if folder is not None
        else "Running again changes nothing. The index lies in a folder below the server's own "
        "directory; with source.data_dir set to that directory, this message names it. Put that "
        "folder back from a backup. Without one, stop the server, move that folder away, start "
        "it, and run the same command again: the texts do not lie in it, and all of them are "
        "embedded. Only the old vectors are lost."
    )
    return DamagedStoreError(told, _too_few_files(told) + hint, place=place)


def status_of(error: BaseException) -> int | None:
    """The HTTP status behind an error of Chroma's client, which keeps it in the context alone."""
    seen: set[int] = set()
    at: Any = error
    while at is not None and id(at) not in seen:
        if _of_httpx(at, "HTTPStatusError"):
            status: int = at.response.status_code
            return status
        seen.add(id(at))
        at = at.__cause__ or at.__context__
    return None


def _of_httpx(error: BaseException, kind: str) -> bool:
    """Whether it is one of httpx's errors, which nobody raises who has not imported it."""
    httpx = sys.modules.get("httpx")
    return httpx is not None and isinstance(error, getattr(httpx, kind))


def unknown_call(error: BaseException) -> bool:
    """Whether the server does not know the call: a 404 that is no answer of Chroma's."""
    return type(error) is Exception and status_of(error) == 404


def refused(error: BaseException) -> bool:
    """Whether Chroma will never take this request."""
    return isinstance(error, REFUSALS) or NOT_TAKEN in str(error)


def is_too_large(error: BaseException) -> bool:
    """Whether the request is larger than the server takes, or a proxy before it, whose answer is no
    Chroma error but the text of status 413."""
    return status_of(error) == 413 or (
        type(error) is Exception and "too large" in str(error).lower()
    )


def of_record(told: str, error: BaseException) -> PreflightError:
    """The error of a request that was refused, be it for its size or for what is in it."""
    return PreflightError(told, TOO_LARGE if is_too_large(error) else "")


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
    except NotFoundError as error:
        if str(error).startswith(("Database [", "Tenant [")):
            raise PreflightError(f"{where}: {error}", NO_DATABASE) from error
        raise CollectionGoneError(f"{where}: {error}") from error
    except (ChromaAuthError, AuthorizationError) as error:
        raise PreflightError(f"{where}: access refused: {error}", AUTH_HINT) from error
    except REFUSALS as error:
        by_status = _of_status(where, error)
        if by_status is not None:
            raise by_status from error
        if "Could not connect" in str(error):
            raise _unreached(f"{where}: {error}") from error
        hint = NO_CHROMA if "expected a JSON value" in str(error) else ""
        raise PreflightError(f"{where}: Chroma refused: {error}", hint) from error
    except ChromaError as error:
        if "already exists" in str(error):
            raise PreflightError(f"{where}: {error}") from error
        raise _failure(where, error) from error
    except BaseException as error:
        if _of_httpx(error, "HTTPError"):
            raise _of_network(where, error) from error
        # The client raises bare Exception for an answer that is not Chroma's (a proxy's page), and
        # its Rust part a PanicException, which is no Exception at all.
        if type(error) is not Exception and type(error).__name__ != "PanicException":
            raise
        raise _of_status(where, error) or _failure(where, error) from error


def _of_network(where: str, error: BaseException) -> ReembedError:
    told = f"{where}: {type(error).__name__}: {error}"
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return PreflightError(
            told,
            "CHROMA_SERVER_SSL_VERIFY=/path/to/ca.pem names the certificates to trust; "
            "CHROMA_SERVER_SSL_VERIFY=false checks none.",
        )
    return _unreached(told)


def _unreached(told: str) -> UnreachableError:
    return UnreachableError(
        told, "Check that the server runs and the address is right; run again to resume."
    )


def _of_status(where: str, error: BaseException) -> ReembedError | None:
    """The error of an HTTP status, where one is behind `error`."""
    status = status_of(error)
    return None if status is None else of_status(where, status, str(error))


def of_status(where: str, status: int, text: str) -> ReembedError:
    """What it means that a server, or a proxy before it, answers with this status and text."""
    words = " ".join(text.split())[:300]
    told = f"{where}: answered with status {status}{': ' if words else ''}{words}"
    if status in (401, 403):
        return PreflightError(told, AUTH_HINT)
    if 300 <= status < 400:
        return PreflightError(told, "It redirects; write the address that it leads to.")
    if status == 413:
        return PreflightError(told, TOO_LARGE)
    if status in (404, 405, 410, 501):
        return PreflightError(told, NO_CHROMA)
    if status < 500 and status not in PASSING:
        return PreflightError(told)
    return UnreachableError(told, f"Check that the server runs. {_AGAIN}")


def _failure(where: str, error: BaseException) -> ReembedError:
    """What a failure of Chroma's own comes from, as far as its words tell."""
    told = f"{where}: Chroma failed: {error}"
    if any(words in str(error) for words in _ON_MEMORY):
        return OutOfMemoryError(told)
    if "disk is full" in str(error):
        return PreflightError(
            told, "Free some space where Chroma's database is, and run the same command again."
        )
    if "readonly database" in str(error):
        return PreflightError(
            told, "Give the user that Chroma runs as the right to write to its database."
        )
    if (damaged := damage(told)) is not None:
        return damaged
    if any(words in str(error) for words in _ON_INDEX):
        return damaged_index(told, where)
    if any(word in str(error) for word in _ON_DISK):
        return UnreachableError(
            told, f"The disk of Chroma's database may be full: see that it has room. {_AGAIN}"
        )
    return UnreachableError(told, _AGAIN)
