"""A real `chroma run` process on a free port of 127.0.0.1."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx


@dataclass(frozen=True)
class ChromaServer:
    """Where the server listens, the folder it serves, and its process id."""

    url: str
    port: int
    folder: Path
    pid: int


@contextmanager
def chroma_server(
    folder: Path, seconds: float = 60, port: int = 0, program: Path | None = None
) -> Iterator[ChromaServer]:
    """Serve `folder`, which need not exist, until the end of the block; on a free port without
    `port`, by this Chroma without `program`."""
    port = port or free_port()
    program = program or Path(sys.executable).with_name("chroma")
    command = [program, "run", "--path", folder, "--host", "127.0.0.1", "--port", str(port)]
    log = folder.with_name(f"{folder.name}.log")
    with log.open("w") as output:
        process = subprocess.Popen(
            [str(part) for part in command], stdout=output, stderr=subprocess.STDOUT
        )
    try:
        _wait(process, port, log, time.monotonic() + seconds)
        yield ChromaServer(f"chroma+http://127.0.0.1:{port}", port, folder, process.pid)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait(process: subprocess.Popen[bytes], port: int, log: Path, deadline: float) -> None:
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"chroma run ended with {process.returncode}: {log.read_text()}")
        try:
            if httpx.get(f"http://127.0.0.1:{port}/api/v2/heartbeat", timeout=1).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise RuntimeError(f"chroma run does not answer: {log.read_text()}")
