"""What is said of encryption is done, and the plan passes. Between us and the server is one that
does what a server does about it: it speaks TLS or not, and takes what is not encrypted or not."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from tests.support.commands import Command
from tests.support.following import follows_hint, wrong_and_right
from tests.support.manifests import write_manifest

TLS, GSS = 80877103, 80877104
NOT_ENCRYPTED = (
    b'SFATAL\0VFATAL\0C28000\0Mno pg_hba.conf entry for host "127.0.0.1", user "postgres", '
    b'database "docs", no encryption\0\0'
)


def pipe(source: Any, target: Any) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def serve(client: Any, server: str, certificate: Path | None) -> None:
    """One connection. With a certificate, nothing that is not encrypted is taken."""
    while True:
        head = client.recv(8, socket.MSG_WAITALL)
        if len(head) < 8:
            client.close()
            return
        size, code = struct.unpack("!ii", head)
        if code == GSS or (code == TLS and certificate is None):
            client.sendall(b"N")
        elif code == TLS and certificate is not None:
            client.sendall(b"S")
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            client = context.wrap_socket(client, server_side=True)
            head = client.recv(8)
            break
        elif certificate is not None:
            client.recv(size - 8)
            client.sendall(b"E" + struct.pack("!i", len(NOT_ENCRYPTED) + 4) + NOT_ENCRYPTED)
            client.close()
            return
        else:
            break
    with socket.socket(socket.AF_UNIX) as behind:
        behind.connect(server)
        behind.sendall(head)
        other = threading.Thread(target=pipe, args=(behind, client), daemon=True)
        other.start()
        pipe(client, behind)
        other.join()
    client.close()


@contextlib.contextmanager
def between(url: str, certificate: Path | None) -> Iterator[str]:
    """The URL of a server before the one of this URL, which is at a Unix socket."""
    address, _, host = url.partition("?host=")
    listening = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listening.accept()
                given = (client, f"{unquote(host)}/.s.PGSQL.5432", certificate)
                threading.Thread(target=quietly, args=given, daemon=True).start()

    def quietly(*given: Any) -> None:
        with contextlib.suppress(OSError):
            serve(*given)

    threading.Thread(target=accept, daemon=True).start()
    yield address.replace("@/", f"@127.0.0.1:{listening.getsockname()[1]}/")
    listening.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
         "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "k", "-out", "c"],
        cwd=folder, capture_output=True, check=True,
    )  # fmt: skip
    (folder / "both.pem").write_text((folder / "k").read_text() + (folder / "c").read_text())
    return folder


TRUST = follows_hint("Name the file of the certificates to trust with sslrootcert=FILE in the URL.")


@wrong_and_right([
    ("no TLS", "{plain}?sslmode=require",
     follows_hint("Take sslmode out of the URL (and PGSSLMODE), if nobody can listen on the way"),
     "{plain}"),
    ("only TLS", "{tls}?sslmode=disable",
     follows_hint(" Where it lets in encrypted connections only, add sslmode=require to the URL."),
     "{tls}?sslmode=require"),
    ("a certificate", "{tls}?sslmode=verify-full", TRUST,
     "{tls}?sslmode=verify-full&sslrootcert={folder}/c"),
    ("a certificate that is not checked", "{tls}?sslmode=verify-full", TRUST,
     "{tls}?sslmode=require"),
])  # fmt: skip
def test_what_is_said_of_encryption_is_done_and_planned(
    wrong: str, hint: str, right: str, docs_url: str, certificate: Path, tmp_path: Path,
    command: Command, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PGSSLMODE", raising=False)
    with between(docs_url, None) as plain, between(docs_url, certificate / "both.pem") as tls:

        def plan(url: str) -> Any:
            url = url.format(plain=plain, tls=tls, folder=certificate)
            return command("plan", write_manifest(tmp_path, url), "--json")

        refused = plan(wrong)
        assert refused.code in (5, 7), refused.out
        assert hint in refused.json["error"]["hint"], refused.out
        led = plan(right)
        assert led.code == 0, led.out
