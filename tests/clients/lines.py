"""How an application of this folder talks: a JSON request a line in, a JSON reply a line out."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

Operation = Callable[..., Any]


def serve(operations: Mapping[str, Operation], *, knows_reembed: bool = False) -> None:
    """Answer `{"op": NAME, ...arguments}` with `{"result": ...}`, or with the error's type and
    message, until stdin ends. What libraries print goes to stderr."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply = {"result": operations[request.pop("op")](**request)}
            assert knows_reembed or "reembed" not in sys.modules, "it knows nothing of us"
        except Exception as error:
            reply = {"error": type(error).__name__, "message": str(error)}
        replies.write(json.dumps(reply, default=str) + "\n")
        replies.flush()


def toured(steps: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
    """What came of each step: its answer, or `{"error": TYPE AND MESSAGE}`. Each puts back what it
    changes, and its answer is the same with every model, so that tours can be compared."""
    answers: dict[str, Any] = {}
    for name, step in steps.items():
        try:
            answers[name] = step()
        except Exception as error:
            answers[name] = {"error": f"{type(error).__name__}: {error}"}
    return answers


def with_chromadb() -> None:
    """Let `chromadb` be imported from the tests' own environment, where it is the one under test;
    all else comes from the applications'."""
    where = os.environ["CHROMADB_FROM"]
    if where not in sys.path:
        sys.path.append(where)
