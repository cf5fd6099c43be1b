"""What stands between this process and a server: proxies, certificates, redirects, addresses. Each
either works or is told by name, with real servers and proxies."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from reembed.embedders.embedder import Embedder
from reembed.embedders.providers.connection import bypassed
from reembed.embedders.registry import open_embedder
from reembed.embedders.sending.retry import RetryPolicy
from reembed.errors import PreflightError, ProviderRefusedError, ReembedError, UnreachableError
from reembed.manifest import Model
from tests.support.following import follows_hint, installs
from tests.support.servers.embedding_server import OLLAMA, EmbeddingServer
from tests.support.servers.socks_server import SocksServer

QUICK = RetryPolicy(attempts=2, wait=0.005, longest_wait=0.02, total=5.0)
KEY = "k-9f8e7d6c5b4a39281706"
VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR",
             "OPENAI_API_KEY", "OPENAI_BASE_URL", "OLLAMA_HOST", "OLLAMA_API_KEY")  # fmt: skip
PROVIDERS = ("openai", "ollama")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("SERVICE_KEY", KEY)


class Front:
    """A server that answers everything with one status, and notes what it is asked."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes = b"<h1>no</h1>") -> None:
        self.status, self.headers, self.body = status, headers, body
        self.asked: list[tuple[str, str, str]] = []
        self.url = ""


@contextmanager
def front(
    status: int = 200, body: bytes = b"<h1>no</h1>", certificate: Path | None = None,
    **headers: str,
) -> Iterator[Front]:  # fmt: skip
    made = Front(status, headers, body)

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            made.asked.append((self.command, self.path, str(self.headers)))
            self.rfile.read(int(self.headers.get("content-length") or 0))
            self.send_response(made.status)
            for name, value in made.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(made.body)))
            self.end_headers()
            self.wfile.write(made.body)

        do_GET = do_POST = do_CONNECT = answer

        def log_message(self, *_: object) -> None: ...

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """Clients that refuse a certificate are part of the tests."""

    http = Quiet(("127.0.0.1", 0), Handler)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        http.socket = context.wrap_socket(http.socket, server_side=True)
    threading.Thread(target=http.serve_forever, args=(0.05,), daemon=True).start()
    made.url = f"http{'s' if certificate else ''}://127.0.0.1:{http.server_address[1]}"
    yield made
    http.shutdown()
    http.server_close()


def opened(provider: str, url: str, **more: Any) -> Embedder:
    path = "/v1" if provider == "openai" else ""
    settings = {"name": "wordllama", "base_url": url + path, "api_key_env": "SERVICE_KEY"} | more
    return open_embedder(Model(provider=provider, **settings), retry=QUICK)


def refused(provider: str, url: str, **more: Any) -> ReembedError:
    with pytest.raises(ReembedError) as caught, opened(provider, url, **more) as embedder:
        embedder.check_reachable()
    assert KEY not in repr(caught.value.__dict__)
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    ("status", "kind", "says"),
    [
        (403, ProviderRefusedError, "does not let it through"),
        (407, ProviderRefusedError, "wants a user and a password"),
        (503, UnreachableError, "fails"),
    ],
)
def test_a_proxys_answer_is_told_as_the_proxys(
    provider: str, scheme: str, status: int, kind: type, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with front(status) as proxy:
        monkeypatch.setenv(f"{scheme.upper()}_PROXY", proxy.url.replace("://", "://me:pass-8231@"))
        error = refused(provider, f"{scheme}://embeddings.example")
        assert proxy.asked
    assert isinstance(error, kind)
    assert f"the proxy {proxy.url} ({scheme.upper()}_PROXY) {says}" in error.message
    assert "pass-8231" not in repr(error.__dict__)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_no_proxy_may_hold_networks(provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with EmbeddingServer(OLLAMA) as server, front(503) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "fd00::/8,::1, [fe80::1]:80,nonsense/99,127.0.0.0/8")
        with opened(provider, server.url) as embedder:
            embedder.check_reachable()
        assert not proxy.asked


@pytest.mark.parametrize(
    ("url", "list_", "is_"),
    [
        ("http://[fd00::5]:80/", "fd00::/8", True), ("http://[fe80::5]/", "fd00::/8", False),
        ("http://a.example.com", "example.com", True), ("http://a.example.com", "*.com", True),
        ("http://example.com", ".example.com", True), ("http://mye.com", "e.com", False),
        ("http://h:8080", "h:8080", True), ("http://h:8080", "h:80", False),
        ("http://10.1.2.3", "10.0.0.0/8", True), ("http://10.1.2.3", "10.1.2.3:80", True),
        ("http://h", "", False), ("http://h", " , *", True), ("https://h", "http://h", True),
    ],
)  # fmt: skip
def test_who_is_reached_without_the_proxy(url: str, list_: str, is_: bool) -> None:
    assert bypassed(url, list_) is is_


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(
    ("proxy", "says"), [("socks4://h:1", "cannot be used"), ("http://h:port", "cannot be used")]
)
def test_a_proxy_that_is_none_is_named(
    provider: str, proxy: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    error = refused(provider, "http://embeddings.example")
    assert isinstance(error, PreflightError) and "ALL_PROXY" in error.message
    assert says in error.message
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")  # as the hint says
    with EmbeddingServer(OLLAMA) as server, opened(provider, server.url) as embedder:
        embedder.check_reachable()


@follows_hint("pip install 'reembed-pipeline[socks]', or name this server's host")
@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_socks_proxy_without_its_package(provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with SocksServer() as proxy, EmbeddingServer(OLLAMA) as server:
        monkeypatch.setenv("ALL_PROXY", f"socks5://{proxy.address}")
        for ends in ("installed", "not by the proxy"):
            with monkeypatch.context() as without:
                without.setitem(sys.modules, "socksio", None)
                error = refused(provider, server.url)
                assert "socksio" in error.message and error.kind == "missing-extra"
                assert installs(error.hint, "socksio")
                if ends == "not by the proxy":
                    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
                    with opened(provider, server.url) as embedder:
                        embedder.check_reachable()
            with opened(provider, server.url) as embedder:
                embedder.check_reachable()


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
def test_a_socks_proxy_is_gone_through(
    provider: str, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SocksServer() as proxy, EmbeddingServer(OLLAMA) as server:
        monkeypatch.setenv("ALL_PROXY", f"{scheme}://{proxy.address}")
        with opened(provider, server.url) as embedder:
            embedder.check_reachable()
        assert set(proxy.asked) == {f"127.0.0.1:{server.port}"}
        proxy.asked.clear()
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        with opened(provider, server.url) as embedder:
            embedder.check_reachable()
        assert not proxy.asked


# The client leaves the socket to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_socks_proxy_that_refuses_is_told_as_the_proxy(
    provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SocksServer("me", "pa55-w0rd-of-the-proxy") as proxy, EmbeddingServer(OLLAMA) as server:
        monkeypatch.setenv("ALL_PROXY", f"socks5://me:pa55-w0rd-of-the-proxy@{proxy.address}")
        with opened(provider, server.url) as embedder:
            embedder.check_reachable()
        proxy.refuses = True
        error = refused(provider, server.url)
        assert "the proxy" in error.message and "ALL_PROXY" in error.message
        proxy.refuses = False
        monkeypatch.setenv("ALL_PROXY", f"socks5://me:not-the-password-55@{proxy.address}")
        error = refused(provider, server.url)
        assert "the proxy" in error.message and "ALL_PROXY" in error.message
        assert "not-the-password-55" not in f"{error.message} {error.hint}"


@follows_hint("Name the file that holds the certificate of whoever signed it")
@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_certificate_that_is_not_trusted_and_one_that_is(
    provider: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
         "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "k", "-out", "c"],
        cwd=tmp_path, capture_output=True, check=True,
    )  # fmt: skip
    both = tmp_path / "both.pem"
    both.write_text((tmp_path / "k").read_text() + (tmp_path / "c").read_text())
    rows = [[3.0, 4.0, 0.0]]
    answer: dict[str, Any] = {"embeddings": rows, "data": [{"embedding": rows[0], "index": 0}]}
    with front(200, json.dumps(answer).encode(), certificate=both) as server:
        error = refused(provider, server.url)
        assert "not trusted: self-signed certificate" in error.message
        assert "SSL_CERT_FILE" in error.hint
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "c"))  # as the hint says
        with opened(provider, server.url) as embedder:
            assert embedder.dimensions == 3
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "k"))
        assert "cannot be read" in refused(provider, server.url).message


def certified(folder: Path, days: str, names: str) -> Path:
    """A certificate with its key, signed by itself, in one file."""
    asked = ["openssl", "req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost",
             "-addext", f"subjectAltName={names}", "-keyout", "k", "-out", "r"]  # fmt: skip
    signed = ["openssl", "x509", "-req", "-days", days, "-in", "r", "-signkey", "k",
              "-copy_extensions", "copyall", "-out", "c"]  # fmt: skip
    for command in (asked, signed):
        subprocess.run(command, cwd=folder, capture_output=True, check=True)
    both = folder / "both.pem"
    both.write_text((folder / "k").read_text() + (folder / "c").read_text())
    return both


@pytest.mark.parametrize(
    ("days", "names", "says"),
    [
        pytest.param("-1", "IP:127.0.0.1", "expired",
                     marks=follows_hint("Who runs the server has to renew it.")),
        pytest.param("2", "DNS:localhost", "mismatch",
                     marks=follows_hint("Write the host's name in model.base_url as the")),
    ],
)  # fmt: skip
def test_a_certificate_that_is_old_or_anothers(
    days: str, names: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = json.dumps({"data": [{"embedding": [3.0, 4.0, 0.0], "index": 0}]}).encode()
    both = certified(tmp_path, days, names)
    monkeypatch.setenv("SSL_CERT_FILE", str(both))
    with front(200, answer, certificate=both) as server:
        error = refused("openai", server.url)
        assert says in error.message
        url = server.url.replace("127.0.0.1", "localhost")  # as the hint says
    if says == "expired":
        (renewed := tmp_path / "renewed").mkdir()
        both, url = certified(renewed, "2", names), ""
        monkeypatch.setenv("SSL_CERT_FILE", str(both))
    with (
        front(200, answer, certificate=both) as server,
        opened("openai", server.url.replace("127.0.0.1", "localhost") if url else server.url) as at,
    ):
        assert at.dimensions == 3


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_server_that_has_moved_gets_no_key_elsewhere(provider: str, status: int) -> None:
    with front() as other, front(status, location=f"{other.url}/v1/embeddings") as server:
        error = refused(provider, server.url)
        assert not other.asked
        assert f"moved to {other.url}" in error.message
        assert error.hint == f"Set model.base_url to {other.url}/v1"


def test_a_key_that_no_header_can_carry_is_named_by_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_KEY", "\u201ck-0123456789abcdef\u201d")
    for provider in PROVIDERS:
        error = refused(provider, "http://127.0.0.1:9")
        assert "SERVICE_KEY holds a character" in error.message
        assert "0123" not in repr(error.__dict__)


@pytest.mark.parametrize("tail", ["", "/", "/v1", "/v1/", "/v1/embeddings"])
def test_an_address_with_or_without_v1(tail: str) -> None:
    with EmbeddingServer() as server:
        model = Model(provider="openai", name="wordllama", base_url=server.url + tail)
        with open_embedder(model, retry=QUICK) as embedder:
            assert len(embedder.embed_documents(["one text", "another"]).vectors) == 2
            told = [line for line in embedder.warnings() if "base_url" in line]
    assert bool(told) is (tail in ("", "/"))
    if told:
        assert f"{server.url}/v1:" in told[0]


@pytest.mark.parametrize("tail", ["/v1", "/api", ""])
def test_ollamas_address_with_the_path_of_an_api(tail: str) -> None:
    with EmbeddingServer(OLLAMA) as server:
        model = Model(provider="ollama", name="wordllama", base_url=server.url + tail)
        with open_embedder(model, retry=QUICK) as embedder:
            embedder.check_reachable()


@pytest.mark.parametrize("host", ["http://h:port", "http://[::1"])
def test_a_host_that_is_no_address_is_named(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", host)
    with pytest.raises(ProviderRefusedError, match="is not an address"):
        open_embedder(Model(provider="ollama", name="m"))


def test_an_old_ollama_is_asked_as_it_can_be() -> None:
    """It has neither /api/show nor /api/embed, and gives vectors of any length."""
    paths: list[str] = []

    class Old(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            paths.append(self.path)
            there = self.path == "/api/embeddings"
            vector = [3.0 * len(body.get("prompt", "")), 4.0, 1.0]
            data = json.dumps({"embedding": vector}).encode() if there else b"404 page not found"
            self.send_response(200 if there else 404)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, *_: object) -> None: ...

    http = ThreadingHTTPServer(("127.0.0.1", 0), Old)
    threading.Thread(target=http.serve_forever, args=(0.05,), daemon=True).start()
    with opened("ollama", f"http://127.0.0.1:{http.server_address[1]}") as embedder:
        embedded = embedder.embed_documents(["one", "two texts", "three"])
        assert embedder.fingerprint().digest == ""
        assert any("no /api/embed" in line for line in embedder.warnings())
    http.shutdown()
    http.server_close()
    assert (embedded.vectors**2).sum(axis=1) == pytest.approx(1)
    assert paths.count("/api/embed") == 1
