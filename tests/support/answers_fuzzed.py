"""Calls against answers that are mutated in status, headers, body and framing: whatever comes, the
end is a result or one of our errors, and no key is in it."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from reembed.embedders.embedder import Embedder
from reembed.embedders.registry import open_provider
from reembed.embedders.sending import throttle
from reembed.embedders.sending.retry import RetryPolicy
from reembed.errors import ReembedError
from reembed.manifest import Embed, Model
from tests.support.servers.mutating_server import WIDTH, MutatingServer

KEY = "fz-9Qk2Lm7Xw4Rt8Vb1Nc6Yp3"
TEXTS = [f"text number {number} of a few" for number in range(5)]
HURRY = RetryPolicy(attempts=2, wait=0.001, longest_wait=0.002, total=0.2, first_attempts=1)


def trial(server: MutatingServer, number: int) -> str:
    """One call against answers from this seed; how it ended."""
    server.seed(number)
    model = Model(provider="openai", name="m", base_url=server.url, api_key_env="FUZZ_KEY",
                  options={"timeout": 1.0})  # fmt: skip
    provider = open_provider(model, Path.cwd())
    with Embedder(provider, model, Embed(concurrency=1), HURRY) as embedder:
        try:
            embedded = embedder.embed_documents(TEXTS)
        except ReembedError as error:
            told = f"{error.message} {error.hint} {error.to_dict()} {error!r} {error.__context__!r}"
            assert KEY not in told and KEY.upper() not in told, number
            return type(error).__name__
        told = repr(embedded.rejected) + repr(embedder.warnings())
        assert KEY not in told and KEY.upper() not in told, number
        good = [row for row in range(len(TEXTS)) if row not in embedded.rejected]
        assert embedded.vectors.shape[0] == len(TEXTS)
        assert np.isfinite(embedded.vectors[good]).all()
        assert embedded.vectors[good].any(axis=1).all() if good else True
        return "done" if embedded.vectors.shape[1] == WIDTH else "another width"


def fuzz(first: int, count: int, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    monkeypatch.setenv("FUZZ_KEY", KEY)
    monkeypatch.setattr(throttle, "LONGEST_PAUSE", 0.02)  # headers ask for minutes
    ends: Counter[str] = Counter()
    with MutatingServer() as server:
        for number in range(first, first + count):
            began = time.monotonic()
            ends[trial(server, number)] += 1
            assert time.monotonic() - began < 60, number
    return ends
