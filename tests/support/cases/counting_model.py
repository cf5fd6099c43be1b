"""Two small models for `provider: python`: a text's vector is the sum of its words' fixed vectors.

Every call is counted: a line of JSON in the file that REEMBED_TEST_CALLS names. REEMBED_TEST_SHIFT
moves all vectors (another model of the same name), REEMBED_TEST_SECONDS makes a call slow, and from
the first text on that holds REEMBED_TEST_BREAK every call fails, while that is set.
"""

import json
import os
import re
import time
import zlib

import numpy as np

WORD = re.compile(r"\w+")
_words: dict[tuple[str, int], np.ndarray] = {}


def old(texts):
    return _vectors(texts, 1, 48, "old")


def new(texts):
    return _vectors(texts, 2, 64, "new")


def other(texts):
    """Of as many dimensions as `old`."""
    return _vectors(texts, 3, 48, "other")


AWAY: set[str] = set()


def _vectors(texts, seed, dimensions, name):
    time.sleep(float(os.environ.get("REEMBED_TEST_SECONDS", 0)))
    failing = os.environ.get("REEMBED_TEST_BREAK")
    if failing and (AWAY or any(failing in text for text in texts)):
        AWAY.add(failing)
        raise ConnectionError("the model is away")
    calls = os.environ.get("REEMBED_TEST_CALLS")
    if calls:
        line = json.dumps([name, [zlib.crc32(text.encode()) for text in texts]]) + "\n"
        handle = os.open(calls, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(handle, line.encode())
        os.close(handle)
    vectors = np.stack([_vector(text, seed, dimensions) for text in texts])
    vectors[:, 0] += float(os.environ.get("REEMBED_TEST_SHIFT", 0))
    return vectors


def _vector(text, seed, dimensions):
    words = WORD.findall(text.lower()) or [text]
    return np.sum([_word(word, seed, dimensions) for word in words], axis=0, dtype=np.float32)


def _word(word, seed, dimensions):
    key = (word, seed)
    if key not in _words:
        generator = np.random.default_rng([seed, zlib.crc32(word.encode())])
        _words[key] = generator.normal(size=dimensions).astype(np.float32)
    return _words[key]
