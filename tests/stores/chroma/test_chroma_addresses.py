"""What stands in a Chroma URL, and around one, is obeyed or refused by its name."""

from __future__ import annotations

import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
import yaml

from reembed.errors import ManifestError, PreflightError, UnreachableError
from reembed.manifest import Manifest
from reembed.stores.chroma.address import parse
from reembed.stores.registry import open_source, open_store
from reembed.stores.values import CollectionSpec, StoreOptions
from tests.stores.contract.records import MODEL
from tests.support.chroma_cases import RecordingServer, new_chroma_folder
from tests.support.chroma_data import chroma, plain_collection
from tests.support.following import follows_hint
from tests.support.manifests import manifest_data, write_manifest

BASIC = "chromadb.auth.basic_authn.BasicAuthClientProvider"
TOKEN = "chromadb.auth.token_authn.TokenAuthClientProvider"


Headers = dict[str, tuple[str, int]]


class Proxy:
    """Passes requests on to a Chroma server, and is as strict as it is told to be.

    Args:
        prefix: the only path that leads to Chroma; all else is a 404 page.
        headers: of each the value that it must have, and what is answered else, such as 401.
        certificate: speak TLS with this file.
    """

    def __init__(
        self, port: int, prefix="", headers: Headers | None = None, certificate: Path | None = None
    ) -> None:
        self.seen: list[str] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _pass(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body, path = self.rfile.read(length), self.path
                proxy.seen.append(path)
                for name, (value, status) in (headers or {}).items():
                    if self.headers.get(name) != value:
                        return self._answer(status, b"who are you?")
                if not path.startswith(f"{prefix}/"):
                    self._answer(404, b"<html>nothing here</html>")
                else:
                    got = httpx.request(
                        self.command,
                        f"http://127.0.0.1:{port}{path.removeprefix(prefix)}",
                        content=body,
                        headers={"Content-Type": "application/json"},
                        timeout=60,
                    )
                    self._answer(got.status_code, got.content)

            do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _pass

            def _answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = int(self._server.server_address[1])


@contextmanager
def proxy(port: int, **how: object) -> Iterator[Proxy]:
    made = Proxy(port, **how)  # type: ignore[arg-type]
    thread = threading.Thread(target=made._server.serve_forever, daemon=True)
    thread.start()
    yield made
    made._server.shutdown()
    made._server.server_close()
    thread.join()


@pytest.fixture
def docs(chroma_server):
    """A collection of the server's, made and dropped."""
    store = open_store(chroma_server.url)
    writer = store.to_write()
    made = writer.create(
        CollectionSpec("docs-here", dimensions=4, metric="l2", index={}, metadata=None, model=MODEL)
    )
    yield made.id
    writer.drop(made.id)
    store.close()


def opens(url: str, id: str, **options: object) -> None:
    store = open_store(url, StoreOptions(**options))  # type: ignore[arg-type]
    found = store.catalog.describe_id(id)
    assert found is not None and found.name == "docs-here"
    store.close()


@follows_hint(
    "Check host, port and path: behind a proxy the path goes", where="stores/chroma/client.py"
)
def test_a_path_prefix_leads_to_the_chroma_behind_it_and_to_no_other(chroma_server, docs):
    with proxy(chroma_server.port, prefix="/tools/chroma") as between:
        for tail in ("", "/", "/api/v2"):
            opens(f"chroma+http://127.0.0.1:{between.port}/tools/chroma{tail}", docs)
        assert {path.startswith("/tools/chroma/api/v2/") for path in between.seen} == {True}
        for tail in ("", "/tools"):
            with pytest.raises(PreflightError, match="no Chroma server answers") as caught:
                open_store(f"chroma+http://127.0.0.1:{between.port}{tail}")
            assert "path goes into the URL" in caught.value.hint


@follows_hint("A token: CHROMA_CLIENT_AUTH_PROVIDER=")
@pytest.mark.parametrize(
    ("provider", "secret", "header"),
    [
        (TOKEN, "of-the-proxy", ("Authorization", "Bearer of-the-proxy")),
        (BASIC, "ann:of-the-proxy", ("Authorization", "Basic YW5uOm9mLXRoZS1wcm94eQ==")),
        (None, "of-the-proxy", ("X-Gateway-Key", "of-the-proxy")),
    ],
)
def test_a_key_from_the_environment_opens_and_without_it_a_hint_says_how(
    chroma_server, docs, monkeypatch, provider, secret, header
):
    with proxy(chroma_server.port, headers={header[0]: (header[1], 401)}) as between:
        url = f"chroma+http://127.0.0.1:{between.port}"
        with pytest.raises(PreflightError, match="401") as caught:
            open_store(url)
        assert caught.value.exit_code == 5
        assert "of-the-proxy" not in str(caught.value.to_dict())
        if provider:
            assert provider.rpartition(".")[2] in caught.value.hint
            monkeypatch.setenv("CHROMA_CLIENT_AUTH_PROVIDER", provider)
            monkeypatch.setenv("CHROMA_CLIENT_AUTH_CREDENTIALS", secret)
            opens(url, docs)
        else:
            assert "headers_env" in caught.value.hint
            monkeypatch.setenv("MY_GATEWAY", secret)
            opens(url, docs, headers_env={"X-Gateway-Key": "MY_GATEWAY"})


def test_a_manifest_names_headers_and_never_holds_their_values(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "of-the-proxy")
    with RecordingServer() as server:
        url = f"chroma+http://127.0.0.1:{server.port}"
        path = write_manifest(tmp_path, url, source__headers_env={"Authorization": "MY_TOKEN"})
        manifest = Manifest.load(path)
        open_source(manifest).close()
        assert {headers.get("authorization") for _, _, headers in server.requests} == {
            "of-the-proxy"
        }
    plain = Manifest.load(write_manifest(tmp_path, url, "n.yaml"))
    assert manifest.identity() == plain.identity(), "a header may change between two calls"
    for bad in ("Bearer abcdefghijklmnop", "sk-abcdefghijklmnopqrstuvwx", "not a name", "a1" * 12):
        data = manifest_data(url, source__headers_env={"Authorization": bad})
        with pytest.raises(ManifestError) as caught:
            Manifest.parse(data, tmp_path)
        assert bad not in caught.value.message
    with pytest.raises(ManifestError, match="headers_env is for"):
        Manifest.parse(manifest_data(url, target__headers_env={"X-A": "B"}), tmp_path)
    with pytest.raises(PreflightError, match="NOT_SET"):
        parse(url, {"X-A": "NOT_SET"})
    for other in ("chroma:/x", "postgresql://h/d"):
        with pytest.raises(ManifestError, match="headers_env"):
            open_store(other, StoreOptions(headers_env={"X-A": "MY_TOKEN"}))


def certificate(folder: Path) -> Path:
    """A file with a key and its certificate of 127.0.0.1, which is also alone in `c` beside it."""
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
         "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "k", "-out", "c"],
        cwd=folder, capture_output=True, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    both = folder / "both.pem"
    both.write_text((folder / "k").read_text() + (folder / "c").read_text())
    return both


@follows_hint("CHROMA_SERVER_SSL_VERIFY=/path/to/ca.pem names the certificates")
@follows_hint("Set it to a file with the certificates (PEM)")
def test_a_certificate_of_ones_own_is_checked_against_the_file_named(
    chroma_server, docs, tmp_path, monkeypatch
):
    with proxy(chroma_server.port, certificate=certificate(tmp_path)) as between:
        url = f"chroma+https://127.0.0.1:{between.port}"
        with pytest.raises(PreflightError, match="CERTIFICATE_VERIFY_FAILED") as caught:
            open_store(url)
        assert "CHROMA_SERVER_SSL_VERIFY" in caught.value.hint
        for value in (str(tmp_path / "c"), "false", "False", "0"):
            monkeypatch.setenv("CHROMA_SERVER_SSL_VERIFY", value)
            opens(url, docs)
        monkeypatch.setenv("CHROMA_SERVER_SSL_VERIFY", str(tmp_path / "none.pem"))
        with pytest.raises(PreflightError, match=r"none\.pem is not a file"):
            open_store(url)


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("chroma+http://h?api_version=v1", "api_version"),
        ("chroma+http://h?tenant=", "tenant"),
        ("chroma+http://h?database=a&database=b", "database"),
        ("chroma+http://h#docs", "#"),
        ("chroma:/db?collection=docs", "collection"),
        ("chroma+cloud://t/d/c", "tenant and database"),
        ("chroma+cloud://t/d?tenant=x", "tenant and database"),
        ("chroma+cloud://t:443/d", "tenant and database"),
    ],
)
def test_what_an_address_says_and_cannot_be_done_is_refused_by_name(url, word):
    with pytest.raises(ManifestError, match=word) as caught:
        parse(url)
    assert caught.value.hint


def test_a_host_that_begins_with_http_is_a_host():
    assert parse("chroma+http://httpbox:8001/x").base == "http://httpbox:8001/x"
    assert parse("chroma+https://h/a%20b").base == "https://h:443/a%20b"
    with pytest.raises(UnreachableError):
        open_store("chroma+http://http-nowhere.invalid:1/x")


def test_a_folder_has_tenants_and_databases_too(tmp_path):
    folder = new_chroma_folder(tmp_path / "db")
    code = (
        "import sys, chromadb; folder = sys.argv[1]; admin = chromadb.AdminClient("
        "chromadb.Settings(is_persistent=True, persist_directory=folder)); "
        "admin.create_tenant('acme'); admin.create_database('prod', 'acme'); "
        "client = chromadb.PersistentClient(folder, tenant='acme', database='prod'); "
        "client.create_collection('theirs', embedding_function=None)"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code, str(folder)], check=True)
    with chroma(folder) as client:
        plain_collection(client, count=1)
    data = manifest_data("chroma:./db?tenant=acme&database=prod")
    path = tmp_path / "m.yaml"
    path.write_text(yaml.safe_dump(data))
    url = Manifest.load(path).source.url
    assert url == f"chroma:{folder}?tenant=acme&database=prod"
    theirs = open_store(url)
    assert theirs.catalog.collections() == ["theirs"]
    theirs.close()
    default = open_store(f"chroma:{folder}")
    assert default.catalog.collections() == ["docs"]
    default.close()
    with pytest.raises(PreflightError):
        open_store(f"chroma:{folder}?database=none")
    odd = new_chroma_folder(tmp_path / "odd?tenant=x")
    named_so = open_store(f"chroma:{odd}")
    assert named_so.catalog.collections() == []
    named_so.close()


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ({"/api/v2/version": (404, b""), "/api/v1/version": (200, b'"0.4.24"')}, "0.4.24"),
        ({"/api/v2/version": (200, b'"0.6.3"')}, "0.6.3"),
        ({"/api/v2/version": (404, b"<html>")}, "no Chroma server answers"),
        ({"/api/v2/version": (200, b"<html>")}, "Expecting value|unexpected character"),
        ({"/api/v2/version": (302, b"")}, "302"),
    ],
)
def test_what_will_never_do_is_refused_and_not_called_out_of_reach(answers, told):
    """Exit code 7 says "run again to resume": of an old server it would say so for ever."""
    with (
        answering(answers) as port,
        pytest.raises(PreflightError, match=told) as caught,
    ):
        open_store(f"chroma+http://127.0.0.1:{port}")
    assert caught.value.exit_code == 5
    assert caught.value.hint


@contextmanager
def answering(answers: dict[str, tuple[int, bytes]]) -> Iterator[int]:
    """A server that answers these paths so, and all others as the first."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers.get(self.path, next(iter(answers.values())))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield int(server.server_address[1])
    server.shutdown()
    server.server_close()
    thread.join()
