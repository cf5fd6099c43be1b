"""Secrets of a URL are found even where it is written wrongly."""

from __future__ import annotations

import pytest

from reembed.redaction import without_secrets


@pytest.mark.parametrize(
    ("url", "shown", "secrets"),
    [
        ("postgresql://me:hunter2@host/db", "postgresql://me@host/db", ["hunter2"]),
        ("postgresql://me:hun/ter2@host/db", "postgresql://me@host/db", ["hun/ter2"]),
        ("postgresql://me:h#un@ter2@host/db", "postgresql://me@host/db", ["h#un@ter2"]),
        ("postgresql://me:h?a=b@host/db", "postgresql://me@host/db", ["h?a=b"]),
        ("postgresql://h:5432/db?password=a@b", "postgresql://h:5432/db", ["a@b"]),
        ("postgresql://h/d?%70assword=x&sslmode=a", "postgresql://h/d?sslmode=a", ["x"]),
        ("postgresql://h/db?password=$x", "postgresql://h/db", ["$x"]),
        ("postgresql:///db?host=/tmp&sslpassword=q", "postgresql:///db?host=/tmp", ["q"]),
        ("postgres:/me:pw@h/db", "postgres:/me@h/db", ["pw"]),
        ("https://token@host/v1", "https://host/v1", ["token"]),
        ("https://me:pw@host/v1", "https://host/v1", ["pw"]),
        ("https://h/?api-version=2&sig=a%2Bb&code=c", "https://h/?api-version=2", ["a%2Bb", "c"]),
        ("https://h/v1?subscription-key=k&Session_Token=t", "https://h/v1", ["k", "t"]),
        ("chroma:/data/a@b:c", "chroma:/data/a@b:c", []),
        ("chroma+http://host:8000?tenant=t", "chroma+http://host:8000?tenant=t", []),
        ("postgresql://me@h:5432/d?sslmode=a", "postgresql://me@h:5432/d?sslmode=a", []),
    ],
)  # fmt: skip
def test_secrets_are_taken_out_of_a_url(url: str, shown: str, secrets: list[str]) -> None:
    assert without_secrets(url) == (shown, secrets)
