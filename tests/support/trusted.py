"""The certificates that httpx trusts, read once.

Every client of httpx reads them anew, even one of `http://`: 25 ms of computing, and each test of a
provider or of a Chroma server makes several. Where the caller names others, they are read each
time.
"""

from __future__ import annotations

import functools
import os
import ssl
from pathlib import Path
from typing import Any

import httpx

_read = httpx.create_ssl_context


def trusted(verify: Any = True, cert: Any = None, trust_env: bool = True) -> ssl.SSLContext:
    """In place of `httpx.create_ssl_context`."""
    named = [os.environ.get(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if trust_env]
    paths = [path for path in named if path]
    if verify is not True or cert is not None or not all(Path(path).exists() for path in paths):
        return _read(verify, cert, trust_env)
    # A file that was written anew is another one.
    return _read_once(tuple((path, Path(path).stat().st_mtime_ns) for path in paths))


@functools.cache
def _read_once(named: tuple[tuple[str, int], ...]) -> ssl.SSLContext:
    return _read(trust_env=bool(named))
