"""A SOCKS5 proxy (RFC 1928) of the tests' own: CONNECT alone, with or without a password."""

from __future__ import annotations

import socket
import socketserver
import struct
import threading

from tests.support.servers.serving import Serving, TcpServer


class SocksServer(Serving):
    """Use as a context manager.

    Attributes:
        asked: `host:port` of every connection that was asked for.
        refuses: connections are answered with "not allowed by ruleset".
    """

    def __init__(self, user: str = "", password: str = "") -> None:
        self.asked: list[str] = []
        self.refuses = False
        self.wanted = (user.encode(), password.encode())
        owner = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                owner._handle(self.request)

        self._server = TcpServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_address[1]}"

    def _handle(self, client: socket.socket) -> None:
        client.settimeout(20)
        _, methods = _exactly(client, 2)
        offered = _exactly(client, methods)
        method = 2 if self.wanted[0] else 0
        if method not in offered:
            client.sendall(b"\x05\xff")
            return
        client.sendall(bytes((5, method)))
        if method == 2:
            _, length = _exactly(client, 2)
            user = _exactly(client, length)
            password = _exactly(client, _exactly(client, 1)[0])
            good = (user, password) == self.wanted
            client.sendall(b"\x01" + (b"\x00" if good else b"\x01"))
            if not good:
                return
        _, _, _, kind = _exactly(client, 4)
        if kind == 3:
            host = _exactly(client, _exactly(client, 1)[0]).decode()
        else:
            family, size = (socket.AF_INET, 4) if kind == 1 else (socket.AF_INET6, 16)
            host = socket.inet_ntop(family, _exactly(client, size))
        (port,) = struct.unpack(">H", _exactly(client, 2))
        self.asked.append(f"{host}:{port}")
        end = b"\x00\x01\x00\x00\x00\x00\x00\x00"
        if self.refuses:
            client.sendall(b"\x05\x02" + end)
            return
        with socket.create_connection((host, port), 20) as server:
            client.sendall(b"\x05\x00" + end)
            back = threading.Thread(target=_pass_on, args=(server, client), daemon=True)
            back.start()
            _pass_on(client, server)
            back.join(20)


def _exactly(from_: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = from_.recv(count - len(data))
        if not more:
            raise ConnectionError
        data += more
    return data


def _pass_on(from_: socket.socket, to: socket.socket) -> None:
    try:
        while data := from_.recv(65_536):
            to.sendall(data)
        to.shutdown(socket.SHUT_WR)
    except OSError:
        pass
