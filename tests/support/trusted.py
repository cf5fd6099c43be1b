"""The certificates that httpx trusts, read once.

Every client of httpx reads them anew, even one of `http://`: 25 ms of computing, and each test of a
provider or of a Chroma server makes several. Where the environment or the caller names others, they
are read each time.
"""

from __future__ import annotations

import functools
import os
import ssl
from typing import Any

import httpx

_read = httpx.create_ssl_context


def trusted(verify: Any = True, cert: Any = None, trust_env: bool = True) -> ssl.SSLContext:
    """In place of `httpx.create_ssl_context`."""
    named = trust_env and (os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR"))
    if verify is not True or cert is not None or named:
        return _read(verify, cert, trust_env)
    return _read_once()


@functools.cache
def _read_once() -> ssl.SSLContext:
    return _read(trust_env=False)
