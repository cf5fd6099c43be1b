"""What a Chroma URL says, whole: whatever stands in one is either obeyed or refused by its name.

A part that is dropped in silence (a path prefix, a database) leads to somebody else's collections.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from reembed.errors import ManifestError, PreflightError
from reembed.manifest.urls import split_query
from reembed.redaction import read_variable

API_PATH = "/api/v2"
DEFAULT_TENANT, DEFAULT_DATABASE = "default_tenant", "default_database"
"""As `chromadb.config` has them, whose import takes long."""
EXAMPLE = "For example chroma+http://host:8000, or chroma+https://host/prefix?tenant=T&database=D."
_PLACES = ("tenant", "database")
"""What may follow the ? of a URL."""


@dataclass(frozen=True)
class Address:
    """Where a Chroma URL points.

    Attributes:
        path: the folder of a local database, None for a server.
        host, port, tls: of a server.
        prefix: what stands before `/api/v2` behind a proxy, such as `/chroma`; empty without one.
        tenant, database: None means what the client's environment or key says (Cloud only).
        cloud: Chroma Cloud, so a token is needed.
        headers: sent with every request.
        verify: whether the server's certificate is checked, or the CA file it is checked against.
    """

    path: Path | None = None
    host: str = ""
    port: int = 0
    tls: bool = False
    prefix: str = ""
    tenant: str | None = DEFAULT_TENANT
    database: str | None = DEFAULT_DATABASE
    cloud: bool = False
    headers: Mapping[str, str] | None = None
    verify: bool | str = True

    @property
    def base(self) -> str:
        """The server's address up to the API: `http://host:8000/prefix`."""
        scheme = "https" if self.tls else "http"
        return f"{scheme}://{self.host}:{self.port}{quote(self.prefix)}"


def parse(url: str, headers_env: Mapping[str, str] | None = None) -> Address:
    """The address in a `chroma:` URL.

    `chroma:/path`, `chroma+http://host:port/prefix`, `chroma+https://host:port/prefix` (all with
    optional `?tenant=T&database=D`), `chroma+cloud://tenant/database`.

    Args:
        headers_env: names of headers, each with the environment variable that holds its value.

    Raises:
        ManifestError: the URL does not say where the database is, or says what we cannot do.
        PreflightError: an environment variable is not set, or CHROMA_SERVER_SSL_VERIFY is no file.
    """
    scheme, _, rest = url.partition(":")
    if scheme == "chroma":
        if headers_env:
            raise ManifestError(
                "headers_env: a local Chroma database takes no headers",
                "Leave headers_env out, or use a server's URL.",
            )
        path, query = split_query(rest.removeprefix("//"))
        tenant, database = _places(query, url)
        return Address(Path(path).expanduser().resolve(), tenant=tenant, database=database)
    parts = _split(url, f"{scheme.removeprefix('chroma+')}:{rest}", scheme)
    if scheme == "chroma+cloud":
        return _cloud(parts, url, _headers(headers_env))
    host, port = _host(parts, url)
    if not host:
        raise ManifestError(f"{url}: names no host", EXAMPLE)
    tls = scheme == "chroma+https"
    prefix = unquote(parts.path).rstrip("/").removesuffix(API_PATH)
    tenant, database = _places(parts.query, url)
    return Address(
        host=f"[{host}]" if ":" in host else host,
        port=port or (443 if tls else 8000),
        tls=tls,
        prefix=prefix.rstrip("/"),
        headers=_headers(headers_env),
        verify=ssl_verify() if tls else True,
        tenant=tenant,
        database=database,
    )


def _split(url: str, text: str, scheme: str) -> SplitResult:
    """The URL's parts; none of those that Chroma has no use for."""
    parts = urlsplit(text)
    if parts.username or parts.password:
        raise ManifestError(
            f"{scheme}://: a store URL holds no user or password",
            "Chroma's client reads CHROMA_CLIENT_AUTH_PROVIDER and CHROMA_CLIENT_AUTH_CREDENTIALS; "
            "other headers come from the environment by source.headers_env.",
        )
    if parts.fragment:
        raise ManifestError(f"{url}: a store URL has no part after #", EXAMPLE)
    return parts


def _host(parts: SplitResult, url: str) -> tuple[str | None, int | None]:
    try:
        return parts.hostname, parts.port
    except ValueError as error:
        raise ManifestError(f"{url}: {error}", EXAMPLE) from None


def _places(query: str, url: str) -> tuple[str, str]:
    """Tenant and database of a URL's query; anything else in it is refused by name."""
    found: dict[str, str] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in _PLACES:
            raise ManifestError(
                f"{url}: {key!r} is nothing that a Chroma URL can say",
                "After the ? may stand tenant and database. Headers come from the environment by "
                "source.headers_env.",
            )
        if key in found or not value:
            told = "stands twice" if key in found else "is empty"
            raise ManifestError(f"{url}: {key} {told}", f"Write {key}=NAME once, or leave it out.")
        found[key] = value
    return found.get("tenant", DEFAULT_TENANT), found.get("database", DEFAULT_DATABASE)


def _cloud(parts: SplitResult, url: str, headers: Mapping[str, str] | None) -> Address:
    tenant, segments = parts.netloc, [part for part in parts.path.split("/") if part]
    if parts.query or ":" in tenant or len(segments) > 1:
        raise ManifestError(
            f"{url}: Chroma Cloud is addressed by tenant and database alone",
            "Write chroma+cloud://tenant/database; CHROMA_CLOUD_HOST names another host.",
        )
    return Address(
        **_cloud_endpoint(),
        tenant=tenant or os.environ.get("CHROMA_TENANT"),
        database=segments[0] if segments else os.environ.get("CHROMA_DATABASE"),
        cloud=True,
        headers=headers,
        verify=ssl_verify(),
    )


def _cloud_endpoint() -> dict[str, Any]:
    """CHROMA_CLOUD_HOST (`host`, `host:port` or `http://host:port`), else Chroma's own."""
    text = os.environ.get("CHROMA_CLOUD_HOST", "api.trychroma.com")
    parts = urlsplit(text if "://" in text else f"https://{text}")
    tls = parts.scheme == "https"
    return {"host": parts.hostname or "", "port": parts.port or (443 if tls else 80), "tls": tls}


def _headers(headers_env: Mapping[str, str] | None) -> dict[str, str] | None:
    if not headers_env:
        return None
    values = {header: read_variable(name) for header, name in headers_env.items()}
    missing = sorted(name for header, name in headers_env.items() if not values[header])
    if missing:
        raise PreflightError(
            f"headers_env: the environment variable {', '.join(missing)} is not set",
            "Set it to the header's value, or leave the header out.",
        )
    return {header: value for header, value in values.items() if value}


def ssl_verify() -> bool | str:
    """CHROMA_SERVER_SSL_VERIFY: false, true, or a CA file that the certificate is checked against.

    Chroma's own reading takes the word `false` for a file's name.
    """
    text = os.environ.get("CHROMA_SERVER_SSL_VERIFY", "").strip()
    if text.lower() in ("", "1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off"):
        return False
    if not Path(text).is_file():
        raise PreflightError(
            f"CHROMA_SERVER_SSL_VERIFY: {text} is not a file",
            "Set it to a file with the certificates (PEM) that the server's is checked against, or "
            "to false to check none.",
        )
    return text
