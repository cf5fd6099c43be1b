"""How requests to one server travel: by which proxy, trusting whom, and what it means if they fail.

The HTTP libraries read proxies and certificates from the environment and raise what they like at
what they find there. Here it is read for them, so that a setting of the environment that does not
work is named and never a traceback. OpenAI's own client, for its batch API, uses httpx2, all else
httpx: both are alike, and their errors are known by the names of their classes.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import ssl
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies

from reembed.embedders.failures import failure
from reembed.embedders.provider import TransientError
from reembed.embedders.providers.foreign import chain
from reembed.embedders.providers.http import body_words
from reembed.embedders.redact import redact
from reembed.errors import ManifestError, MissingExtraError, ProviderRefusedError, UnreachableError
from reembed.redaction import read_variable, remember_url, shown_url

T = TypeVar("T")

CERTIFICATE_VARIABLES = "SSL_CERT_FILE or SSL_CERT_DIR"
MOST_CONNECTIONS = 1_000
TAILS = ("/embeddings", "/api/embed", "/api/show", "/api/embeddings")
"""What is asked for under a server's address."""
KEPT_METHOD = (307, 308)
"""Statuses that move a request as it is; at the others a client would ask with GET."""
PROXY_STATUSES = (403, 407, 502, 503, 504)
"""Statuses that a proxy answers of its own accord."""
_STATUS = re.compile(r"\b([45]\d\d)\b")
_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE")
_UNSENDABLE = {"LocalProtocolError", "UnsupportedProtocol", "InvalidURL", "UnicodeError"}
_BROKEN = {"TransportError", "HTTPError", "StreamError", "APIConnectionError", "OSError"}


class MovedError(Exception):
    """A redirect that is not followed: a key must not go where it leads."""

    def __init__(self, status: int, to: str) -> None:
        super().__init__(f"{status}: moved to {shown_url(to)}")
        self.status = status
        self.to = to


def checked_key(variable: str, where: str) -> str:
    """The key in an environment variable, "" where it is not set.

    Raises:
        ProviderRefusedError: it holds what no header can carry.
    """
    key = read_variable(variable)
    if not (key.isascii() and key.isprintable()):
        raise ProviderRefusedError(
            f"{where}: {variable} holds a character that no key has, such as a line break or a "
            "curly quote",
            "It was often copied together with the key: set the variable again.",
        )
    return key


@dataclass(frozen=True)
class Route:
    """The way to one server.

    Attributes:
        url: of the server.
        where: its model and address in messages.
        unheard: what to do where nobody answers.
        proxy: URL of the proxy in between, None without.
        variable: the environment variable that named it.
    """

    url: str
    where: str
    unheard: str
    proxy: str | None = None
    variable: str = ""

    @classmethod
    def find(cls, url: str, where: str, unheard: str) -> Route:
        """The route that the environment's HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY ask
        for, as curl reads them; NO_PROXY may hold networks, IPv6 ones too."""
        told = getproxies()
        parts = urlsplit(url)
        for name in (parts.scheme, "all"):
            proxy = told.get(name)
            if proxy and not bypassed(url, told.get("no", "")):
                proxy = proxy if "://" in proxy else f"http://{proxy}"
                remember_url(proxy)
                return cls(url, where, unheard, proxy, f"{name.upper()}_PROXY")
        return cls(url, where, unheard)

    @property
    def shown_proxy(self) -> str:
        return f"the proxy {shown_url(self.proxy or '')} ({self.variable})"

    @property
    def _encrypts(self) -> bool:
        """Whether any connection is by TLS: no redirect leads to another scheme. Certificates that
        the environment names are read all the same, so that a wrong name is told."""
        named = any(os.environ.get(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"))
        return named or any(not url.startswith("http:") for url in (self.url, self.proxy) if url)

    def client(self, kind: Callable[..., T], **settings: Any) -> T:
        """An HTTP client of `kind`, httpx's or httpx2's or a descendant, that takes this way.

        Raises:
            MissingExtraError: a SOCKS proxy needs a package that is not here.
            ProviderRefusedError: what the environment says of proxy or certificates is unusable.
        """
        bases = kind.__mro__ if isinstance(kind, type) else ()
        library: Any = sys.modules[
            next(base for base in bases if base.__name__ == "Client").__module__.partition(".")[0]
        ]
        limits = library.Limits(
            max_connections=MOST_CONNECTIONS, max_keepalive_connections=MOST_CONNECTIONS
        )
        try:
            context = library.create_ssl_context() if self._encrypts else _trusting_nobody()
        except Exception as error:  # whatever a file that is none brings
            raise ProviderRefusedError(
                f"{self.where}: the certificates that {CERTIFICATE_VARIABLES} names cannot be "
                f"read ({redact(str(error))})",
                "Name a file of certificates in PEM form there, or unset the variable.",
            ) from None
        try:
            transport = library.HTTPTransport(verify=context, limits=limits, proxy=self.proxy)
        except ImportError:
            raise MissingExtraError(
                f"{self.where}: {self.shown_proxy} is a SOCKS proxy, which needs the package "
                "socksio",
                "pip install 'reembed-pipeline[socks]', or name this server's host in NO_PROXY.",
            ) from None
        except Exception as error:  # ValueError and InvalidURL, as far as is known
            raise ProviderRefusedError(
                f"{self.where}: {self.shown_proxy} cannot be used ({redact(str(error))})",
                f"Set {self.variable} to http://HOST:PORT or socks5://HOST:PORT, or name this "
                "server's host in NO_PROXY.",
            ) from None
        return kind(transport=transport, **settings)

    def check_redirect(self, response: Any) -> None:
        """A hook for responses: a redirect is followed only to another path of the same server.

        Raises:
            MovedError: it leads elsewhere, or loses the request on the way.
        """
        location = response.headers.get("location")
        if not (300 <= response.status_code < 400 and location):
            return
        to = urljoin(str(response.request.url), location)
        if response.status_code not in KEPT_METHOD or _origin(to) != _origin(self.url):
            raise MovedError(response.status_code, to)

    def status_failure(
        self, status: int | None, body: str, headers: Mapping[str, str], key_variable: str
    ) -> Exception:
        """What an answer with this status and body means; see `failures.failure`.

        Over plain HTTP a proxy's answers look like the server's own; what is not JSON and has a
        status that proxies use is told as the proxy's.
        """
        words = redact(body_words(body))
        plain = self.proxy is not None and urlsplit(self.url).scheme == "http"
        if plain and status in PROXY_STATUSES and not body.lstrip().startswith(("{", "[")):
            return self._proxy_failure(status, words)
        return failure(status, words, headers, self.where, key_variable)

    def failure(self, error: BaseException) -> Exception:
        """The error of the Provider protocol for what an HTTP client raised instead of an answer.
        What nobody knows may pass."""
        found = list(chain(error))
        names = {kind.__name__ for one in found for kind in type(one).__mro__}
        words = redact(f"{type(found[-1]).__name__}: {found[-1]}")
        for one in found:
            if isinstance(one, MovedError):
                return self._moved(one)
            if isinstance(one, ssl.SSLCertVerificationError):
                return self._untrusted(one)
        if "ProxyError" in names:
            told = _STATUS.search(str(error)) or _STATUS.search(words)
            return self._proxy_failure(int(told[1]) if told else None, words)
        if names & {"ConnectError", "ConnectTimeout"}:
            if any(reason in words for reason in _NO_TLS):
                return ProviderRefusedError(
                    f"{self.where}: what answers there does not speak TLS ({words})",
                    "Write http:// instead of https:// in model.base_url, if that is right.",
                )
            if self.proxy:
                return UnreachableError(
                    f"{self.where}: nobody answers, by way of {self.shown_proxy} ({words})",
                    f"See that this proxy runs, correct {self.variable}, or name this server's "
                    "host in NO_PROXY. Then run again: it resumes.",
                )
            return UnreachableError(f"{self.where}: nobody answers ({words})", self.unheard)
        if names & _UNSENDABLE:
            return ProviderRefusedError(
                f"{self.where}: the request cannot be sent ({words})",
                "Check model.base_url, and the key and headers that go with it.",
            )
        if names & _BROKEN:
            slow = any("Timeout" in name for name in names)
            return TransientError(f"the connection {'timed out' if slow else 'broke'} ({words})")
        return TransientError(words, unknown="OpenAIError" not in names)

    def _moved(self, moved: MovedError) -> ProviderRefusedError:
        here, to = urlsplit(self.url), urlsplit(moved.to)
        address = moved.to.partition("?")[0].rstrip("/")
        base = next((address.removesuffix(t) for t in TAILS if address.endswith(t)), None)
        if base is None or base == self.url.partition("?")[0].rstrip("/"):
            return ProviderRefusedError(
                f"{self.where}: it sends every request on to {shown_url(moved.to)} "
                f"({moved.status}), where no model answers",
                "That may be a page where people log in. Set model.base_url to the address that "
                "its documentation gives for programs.",
            )
        hint = "Set model.base_url to the address that the server is at now."
        if to.hostname == here.hostname:
            hint = f"Set model.base_url to {shown_url(base)}"
        return ProviderRefusedError(
            f"{self.where}: it says that it has moved to {shown_url(moved.to)} ({moved.status}), "
            "where a key is not sent unasked",
            hint,
        )

    def _untrusted(self, error: ssl.SSLCertVerificationError) -> ProviderRefusedError:
        reason = getattr(error, "verify_message", "") or str(error)
        if "expired" in reason or "not yet valid" in reason:
            hint = (
                "Who runs the server has to renew it. If this machine's clock is wrong (`date`), "
                "set it right."
            )
        elif "mismatch" in reason:
            hint = "Write the host's name in model.base_url as the certificate has it."
        else:
            hint = (
                "Name the file that holds the certificate of whoever signed it in SSL_CERT_FILE, "
                "if you trust it."
            )
        return ProviderRefusedError(
            f"{self.where}: its certificate is not trusted: {redact(reason)}", hint
        )

    def _proxy_failure(self, status: int | None, words: str) -> Exception:
        if status == 407:
            return ProviderRefusedError(
                f"{self.where}: {self.shown_proxy} wants a user and a password (407)",
                f"Put both into {self.variable}, in front of the proxy's host: the user, a colon, "
                "the password, and an @.",
            )
        if status is not None and status < 500 and status not in (408, 429):
            return ProviderRefusedError(
                f"{self.where}: {self.shown_proxy} does not let it through ({words})",
                "Ask who runs the proxy, or name this server's host in NO_PROXY.",
            )
        return TransientError(f"{self.shown_proxy} fails ({words})", unpaid=True)


def _trusting_nobody() -> ssl.SSLContext:
    """For what is not encrypted: reading the certificates that others trust takes longer than a
    hundred requests."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def check_url(url: str) -> None:
    """Refuse what is no address of a server.

    Raises:
        ManifestError: it has no http or https, no host, or a port that is none.
    """
    shown = shown_url(url)
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise ManifestError(
            f"model.base_url: {shown!r} is not an http or https URL",
            "Write the whole address, as in http://127.0.0.1:8080/v1 or https://HOST/v1.",
        )
    if not parts.hostname or _origin(url)[2] == -1:
        lacks = "names no host" if not parts.hostname else "has a port that is none"
        raise ManifestError(
            f"model.base_url: {shown!r} {lacks}",
            "Write the whole address, as in http://127.0.0.1:8080/v1 or https://HOST/v1.",
        )


def bypassed(url: str, no_proxy: str) -> bool:
    """Whether a `NO_PROXY` list names the host of `url`: by name or the end of one, address,
    network, each with or without a port, or `*` for all. What cannot be read is passed over."""
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    address = _address(host)
    for entry in re.split(r"[,\s]+", no_proxy.lower()):
        name = entry.partition("://")[2] or entry
        if name == "*":
            return True
        if address is not None:
            bare = name.removeprefix("[").partition("]")[0] if "[" in name else name
            if bare.count(":") == 1:
                bare = bare.partition(":")[0]
            with contextlib.suppress(ValueError):
                if address in ipaddress.ip_network(bare, strict=False):
                    return True
            continue
        name, _, wanted = name.partition(":")
        name = name.removeprefix("*").removeprefix(".")
        if wanted and wanted != str(_origin(url)[2]):
            continue
        if name and (host == name or host.endswith(f".{name}")):
            return True
    return False


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        return parts.scheme, parts.hostname, -1
    return parts.scheme, parts.hostname, port or {"http": 80, "https": 443}.get(parts.scheme)
