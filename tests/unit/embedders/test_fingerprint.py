from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from reembed.embedders.fingerprint import PROBES, Fingerprint, compare
from reembed.embedders.registry import open_embedder
from reembed.errors import ModelChangedError
from reembed.manifest import Model


@pytest.fixture(scope="module")
def taken() -> Fingerprint:
    with open_embedder(Model(provider="static", name="wordllama", query_prefix="q: ")) as model:
        return model.fingerprint()


def test_it_survives_json(taken):
    again = Fingerprint.from_dict(json.loads(json.dumps(taken.to_dict())))
    assert again.to_dict() == taken.to_dict()
    assert np.array_equal(again.vectors, taken.vectors)
    assert taken.vectors.shape == (len(PROBES) + 1, 256)
    assert not np.array_equal(taken.vectors[-1], taken.vectors[0])  # the query has its prefix


def test_the_key_is_of_settings_and_weights_not_of_floats(taken):
    assert len(taken.key) == 64
    assert replace(taken, vectors=taken.vectors + 1e-4).key == taken.key
    assert replace(taken, details={"server": "2"}).key == taken.key
    assert replace(taken, digest="other").key != taken.key
    assert replace(taken, settings_sha256="other").key != taken.key


def test_wobble_and_a_new_server_version_are_no_change(taken):
    noise = np.random.default_rng(1).normal(scale=1e-5, size=taken.vectors.shape)
    old = replace(taken, details={"server": "1", "gone": "x"})
    new = replace(
        taken, vectors=(taken.vectors + noise).astype(np.float32), details={"server": "2"}
    )
    assert compare(old, new) == ["server was 1, now 2"]


def test_what_changed_is_named(taken):
    def says(**change: object) -> str:
        with pytest.raises(ModelChangedError) as caught:
            compare(taken, replace(taken, **change))
        assert caught.value.hint
        return caught.value.message

    moved = taken.vectors.copy()
    moved[4] = moved[0]
    assert "probes upper case (cosine 0." in says(vectors=moved)
    assert "length x 2.000" in says(vectors=taken.vectors * 2)
    assert "256 dimensions, now 128" in says(dimensions=128, vectors=taken.vectors[:, :128])
    assert "digest" in says(digest="0" * 64)
    settings = taken.settings | {"document_prefix": "passage: "}
    assert says(settings=settings, settings_sha256="x").endswith("changed: document_prefix")


def test_a_digest_that_nobody_tells_is_no_change(taken):
    assert compare(taken, replace(taken, digest="")) == []
