"""Servers of every manner: a call ends done or refused by name, with every good text embedded, no
good one set aside, and few requests more than were needed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from reembed.embedders.registry import open_embedder
from reembed.errors import PreflightError
from reembed.manifest import Model
from tests.support.servers.embedding_server import WordLlama
from tests.support.servers.manners import MANNERS, POISON, ideal, serve, texts_for
from tests.support.texts import sentence

TEXTS = [sentence(number) for number in range(300)]
MOST = 1.3
"""Requests for one that was needed."""


@pytest.mark.parametrize("name", MANNERS)
def test_a_server_of_this_manner(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    manner = MANNERS[name]
    texts = texts_for(manner, TEXTS)
    kept: set[int] = set()

    def keep(indices: Any, *_: object) -> None:
        assert kept.isdisjoint(indices)
        kept.update(indices)

    with serve(manner) as server:
        options = {"retry_wait": 0.01, "retry_attempts": 8} | manner.model.get("options", {})
        settings = manner.model | {"options": options}
        model = Model(provider="openai", name="wordllama", base_url=server.openai_url, **settings)
        with open_embedder(model) as embedder:
            if manner.refused:
                with pytest.raises(PreflightError, match=manner.refused) as caught:
                    embedder.embed_documents(texts, keep)
                assert caught.value.exit_code == 5 and caught.value.hint
                assert len(server.requests) <= 30
                return
            embedded = embedder.embed_documents(texts, keep)
    assert list(embedded.rejected) == ([POISON] if manner.quarantined else [])
    assert kept == set(range(len(texts))) - set(embedded.rejected)
    assert len(server.requests) <= MOST * ideal(manner, len(texts)), server.statuses
    short = [row for row in kept if len(texts[row].split()) < 100]
    truth = WordLlama()
    expected = np.stack([truth.vector(truth.ids(texts[row])) for row in short])
    assert np.abs(embedded.vectors[short] - expected).max() < 1e-5
    if not manner.again:
        assert {server.served[texts[row]] for row in short} == {1}
