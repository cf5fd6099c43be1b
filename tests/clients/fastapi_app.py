"""manifests/fastapi/app.py behind `lines.serve`, asked by FastAPI's own test client."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

from tests.clients.lines import serve, with_chromadb

with_chromadb()

from fastapi.testclient import TestClient  # noqa: E402

_clients: list[TestClient] = []


def open_service(environment: dict[str, str]) -> None:
    os.environ.update(environment)
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "manifests/fastapi"))
    client = TestClient(importlib.import_module("app").app)
    client.__enter__()
    _clients.append(client)


def ask(method: str, path: str, **arguments: Any) -> list[Any]:
    answer = _clients[-1].request(method, path, **arguments)
    return [answer.status_code, answer.json() if answer.content else None]


if __name__ == "__main__":
    serve({"open": open_service, "ask": ask}, knows_reembed=True)
