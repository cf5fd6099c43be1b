"""A manifest holds no secret, and what only looks a little like one is none."""

from __future__ import annotations

from typing import Any

import pytest

from reembed.errors import ManifestError
from reembed.manifest.secrets import is_secret, refuse_secrets

X = "Zq84" * 10
KEYS = [
    f"github_pat_{X}", f"glpat-{X[:20]}", f"nvapi-{X}", f"xai-{X}", f"pcsk_{X}", f"npm_{X}",
    f"hvs.{X}", f"ASIA{'Q' * 16}", "-----BEGIN RSA PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----\nMII",
    "Basic bWU6aHVudGVyMg==", "basic bWU6aHVudGVyMg",
    "curl -H 'X-Api-Key: Zq84abcd' https://h/", 'curl -H "Authorization: Basic bWU6aHVudGVyMg=="',
    "curl -H 'Ocp-Apim-Subscription-Key: 0123abcd' h", "curl -H 'PRIVATE-TOKEN: Zq84abcd' h",
    "curl -u me:hunter2 https://h/", "deploy --password hunter2", "tool --api-key=Zq84abcd",
    "psql postgresql://me:hun/ter2@host/db", "SESSION_TOKEN=Zq84abcd deploy", "pwd=hunter2",
    "https://h/v1?api-version=2024-01-01&sig=Zq84", "https://h/v1?code=Zq84", "https://tok@h/v1",
    "https://h/?subscription-key=Zq84", "postgresql://h/db?%70assword=x",
]  # fmt: skip


@pytest.mark.parametrize("text", KEYS)
def test_a_secret_in_a_text_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ManifestError) as caught:
        refuse_secrets({"swap": {"before": text}}, "m.yaml")
    assert "swap.before looks like a secret" in caught.value.message
    for part in ("Zq84", "hunter2", "hun/ter2", "bWU6", "0123abcd"):
        assert part not in caught.value.message + caught.value.hint


@pytest.mark.parametrize(
    "name",
    ["session_token", "pwd", "credentials", "dbPassword", "X-Api-Key", "clientSecret", "apiKey",
     "AWS_SECRET_ACCESS_KEY", "auth_token", "private_key", "passphrase", "Authorization"],
)  # fmt: skip
@pytest.mark.parametrize("value", ["abc", 123456])
def test_what_stands_under_the_name_of_a_secret_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ManifestError, match="looks like a secret"):
        refuse_secrets({"model": {"options": {"deep": [{name: value}]}}}, "m.yaml")


@pytest.mark.parametrize("url", ["postgresql://h/db?password=$x", "https://$T@h/v1"])
@pytest.mark.parametrize("key", ["url", "base_url"])
def test_nothing_is_filled_in_in_an_address(key: str, url: str) -> None:
    with pytest.raises(ManifestError, match="looks like a secret"):
        refuse_secrets({"source": {key: url}}, "m.yaml")


@pytest.mark.parametrize(
    "text",
    ["search_document: ", "Password: {document}", "token: {metadata.token}", "a basic introduction",
     "curl -H \"X-Api-Key: $KEY\" https://h/", "curl -H 'Authorization: Bearer ${TOKEN}' h",
     "curl -u \"me:$PASSWORD\" h", "tool --password-file p --token \"$T\"", "deploy --api-key $K",
     "PGPASSWORD=$OTHER psql", "https://h/?code={x}&page=2", "https://h/v1?api-version=2024-01-01",
     "chroma:./a:b@c", "package.module:callable", "postgresql://me@host:5432/db?sslmode=require",
     "tokenizer: max_tokens=512", "risk-free-and-long-enough-a-name",
     "co_customers_2024_and_more_words", "mailto:somebody@example.com", "docs/keys: 12"],
)  # fmt: skip
def test_what_is_no_secret_is_let_through(text: str) -> None:
    assert not is_secret("before", text)


def test_a_secret_of_the_environment_is_refused_by_its_value(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SOME_API_KEY", "odd-9-but-no-known-form")
    with pytest.raises(ManifestError, match="environment variable") as caught:
        refuse_secrets({"model": {"options": {"header": "a odd-9-but-no-known-form"}}}, "m.yaml")
    assert "odd-9" not in caught.value.message
