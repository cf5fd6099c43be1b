"""A secret is starred in whatever encoding it comes back, and nothing else is."""

from __future__ import annotations

import base64
import html
import json
import urllib.parse
from collections.abc import Callable, Iterator

import pytest

from reembed.redaction import known, redacted, redacted_data, redacted_values, remember, remember_in

SECRETS = [
    "hun/ter2",
    's3cr3t/K+y&"<Ü>9x',
    "p%61ss%word-1",
    "a b c d e f 1",
    "𝄞key-ünïcode9",
    "x" * 9,
]


@pytest.fixture(autouse=True)
def nothing_known() -> Iterator[None]:
    known.forget()
    yield
    known.forget()


def everywhere(text: str, form: str = "\\u{:04x}") -> str:
    units = text.encode("utf-16-be")
    return "".join(form.format(units[n] << 8 | units[n + 1]) for n in range(0, len(units), 2))


ENCODINGS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "URL": lambda s: urllib.parse.quote(s, safe=""),
    "URL in small hexadecimal": lambda s: "".join(f"%{byte:02x}" for byte in s.encode()),
    "URL in part": lambda s: urllib.parse.quote(s[: len(s) // 2]) + s[len(s) // 2 :],
    "URL of a form": urllib.parse.quote_plus,
    "URL twice": lambda s: urllib.parse.quote(urllib.parse.quote(s, safe=""), safe=""),
    "base64": lambda s: base64.b64encode(s.encode()).decode(),
    "base64 after a user": lambda s: base64.b64encode(f"user:{s}".encode()).decode(),
    "base64 after two letters": lambda s: base64.b64encode(f"ab{s}cd".encode()).decode(),
    "base64 for URLs": lambda s: base64.urlsafe_b64encode(f"u:{s}".encode()).decode().rstrip("="),
    "JSON": json.dumps,
    "JSON in JSON": lambda s: json.dumps(json.dumps({"a": s})),
    "unicode escapes": everywhere,
    "a URL in JSON": lambda s: json.dumps({"u": f"http://h/?q={urllib.parse.quote(s)}"}),
    "upper case": str.upper,
    "lower case": str.lower,
    "HTML": html.escape,
    "HTML's numbers": lambda s: "".join(f"&#{ord(c)};" for c in s),
    "HTML's hexadecimal": lambda s: "".join(f"&#x{ord(c):X};" for c in s),
    "Python's bytes": lambda s: repr(s.encode()),
    "hexadecimal": lambda s: s.encode().hex(),
    "half starred": lambda s: f"{s[:4]}****{s[-3:]}",
    "half dotted": lambda s: f"{s[:4]}...{s[-2:]}",
    "cut and starred": lambda s: f"{s[:6]}********",
}  # fmt: skip


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("name", ENCODINGS)
def test_a_secret_is_starred_in_every_encoding(secret: str, name: str) -> None:
    encoded = ENCODINGS[name](secret)
    remember(secret)
    told = redacted(f"before {encoded} after")
    assert "[hidden]" in told
    assert told.startswith("before ") and told.endswith(" after")
    for part in (secret, encoded, secret[2:-1], encoded[3:-3]):
        assert part.lower() not in told.lower()


@pytest.mark.parametrize("secret", ["a", "ab", "12", "pw"])
def test_what_is_very_short_stars_nothing(secret: str) -> None:
    remember(secret)
    text = "pw: ab 12 records of a table, 40% done"
    assert redacted(text) == text


@pytest.mark.parametrize("secret", ["docsy", "hunter2", "swordfish", "12345678"])
def test_a_weak_secret_is_starred_as_a_whole_word_alone(secret: str) -> None:
    remember(secret)
    assert redacted(f"role {secret.upper()}, {secret}!") == "role [hidden], [hidden]!"
    inside = f"x{secret} {secret}9 _{secret}_"
    assert redacted(inside) == inside
    assert redacted_values(secret, words=False) == secret


def test_a_weak_secret_that_is_also_a_name_in_the_open_is_left() -> None:
    remember("catalogue", "postgres")
    assert redacted("catalogue of postgres") == "[hidden] of postgres"
    known.allow("Catalogue")
    assert redacted("catalogue of postgres") == "catalogue of postgres"


def test_documents_keep_their_shape() -> None:
    remember("s3cr3t-K3y-9")
    document = {"n": 12, "s3cr3t-K3y-9": [{"x": "a s3cr3t-K3y-9 b", "ok": None}], "t": True}
    assert redacted_data(document) == {
        "n": 12, "[hidden]": [{"x": "a [hidden] b", "ok": None}], "t": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("variable", "value", "is_one"),
    [
        ("OPENAI_API_KEY", "Zq-8481-xyzzy", True),
        ("SESSION_TOKEN", "Zq-8481-xyzzy", True),
        ("DATABASE_URL", "postgresql://me:Zq-8481-xyzzy@host/db", True),
        ("HTTPS_PROXY", "http://me:Zq-8481-xyzzy@proxy:3128", True),
        ("OPENAI_BASE_URL", "https://host/v1?subscription-key=Zq-8481-xyzzy", True),
        ("MY_SETTING", "nvapi-Zq-8481-xyzzyZq-8481-xyzzy", True),
        ("GREETING", "Zq-8481-xyzzy", False),
        ("PGPASSFILE", "Zq-8481-xyzzy", False),
    ],
)
def test_the_environment_is_read_by_the_names_that_secrets_go_by(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, is_one: bool
) -> None:
    monkeypatch.setenv(variable, value)
    assert ("Zq-8481-xyzzy" not in redacted("it is Zq-8481-xyzzy")) == (
        is_one and "nvapi" not in value
    )
    assert (value not in redacted(f"it is {value}")) == is_one


def test_a_variable_of_any_bytes_is_starred(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ODD_TOKEN", "ab\udcff-1234-xyz")
    assert redacted("it is ab\udcff-1234-xyz.") == "it is [hidden]."


def test_configurations_and_headers_are_read_by_their_keys() -> None:
    remember_in({"headers": [{"X-Api-Key": "Zq-8481"}], "pwd": "Wj%2F99-abc", "model": "nomic-1.5"})
    told = redacted("Zq-8481 Wj%2F99-abc Wj/99-abc nomic-1.5")
    assert told == "[hidden] [hidden] [hidden] nomic-1.5"


def test_password_files_of_libpq(tmp_path_factory: pytest.TempPathFactory,
                                 monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    folder = tmp_path_factory.mktemp("home")
    (folder / "pass").write_text("# a\nhost\\:1:5432:*:me:Qx\\:71/ab-9\n")
    (folder / "service").write_text("[one]\nhost=h\npassword=Ry-55-cde\n")
    monkeypatch.setenv("PGPASSFILE", str(folder / "pass"))
    monkeypatch.setenv("PGSERVICEFILE", str(folder / "service"))
    known.remember_password_files()
    assert redacted("Qx:71/ab-9 and Ry-55-cde of host") == "[hidden] and [hidden] of host"


def test_a_key_in_pem_is_starred_line_by_line() -> None:
    key = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0B\nAQEFAASCBKcwggSjAgEAAoIB\n"
    remember(key)
    assert "MIIEv" not in redacted("line: MIIEvQIBADANBgkqhkiG9w0B.")
    assert "AQEFAAS" not in redacted(repr(key))


def test_ordinary_texts_are_left_alone() -> None:
    remember("s3cr3t-K3y-9", "hun/ter2")
    for text in (
        "50% of a & b \\ c",
        "http://h/%zz?a=%41",
        "&nosuch; &#0; \\u00",
        "...",
        "****",
        "",
    ):
        assert redacted(text) == text
