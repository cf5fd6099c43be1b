"""What a manifest adds to every request of an HTTP provider: headers, query, body, authentication.

Servers want more than the API has: Azure a version in the query and the key in `api-key`, NVIDIA
NIM whether a text is a passage or a query, a gateway the name of a team. Values that are secret
come from the environment, by the name of the variable.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal, get_args

from reembed.embedders.options import Options
from reembed.errors import ManifestError, ProviderRefusedError
from reembed.redaction import read_variable, remember

Auth = Literal["bearer", "api-key", "none"]

_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_OURS = {
    "model": "model.name", "input": "the records", "dimensions": "model.dimensions",
    "encoding_format": "model.options.encoding_format",
}  # fmt: skip
"""Keys of a request's body that have settings of their own."""


@dataclass(frozen=True)
class RequestOptions:
    """What to add to every request.

    Attributes:
        headers: by name; values from the environment are filled in.
        query: of the URL.
        body: for documents and for queries.
        auth: where the key goes: `Authorization: Bearer`, `api-key`, or nowhere.
    """

    headers: dict[str, str]
    query: dict[str, str]
    document_body: dict[str, Any]
    query_body: dict[str, Any]
    auth: Auth

    def body(self, *, query: bool) -> dict[str, Any]:
        return self.query_body if query else self.document_body


def take_request_options(options: Options, where: str) -> RequestOptions:
    """Read `headers`, `headers_env`, `query`, `extra_body`, `query_extra_body` and `auth`.

    Args:
        where: the model, for messages.

    Raises:
        ManifestError: a value is not what it should be, or has a setting of its own.
        ProviderRefusedError: a variable that `headers_env` names is not set.
    """
    headers = _texts(options, "headers")
    for name, variable in _texts(options, "headers_env").items():
        value = read_variable(variable)
        if not value:
            raise ProviderRefusedError(
                f"{where}: the environment variable {variable}, for the header {name}, is not set",
                f"export {variable}=..., or leave {name} out of model.options.headers_env.",
            )
        headers[name] = value
    for name, value in headers.items():
        if not _HEADER.fullmatch(name):
            raise ManifestError(f"model.options.headers: {name!r} is not the name of a header")
        if not (value.isascii() and value.isprintable()):
            raise ManifestError(
                f"model.options: the header {name} holds a character that no header may have",
                "Often a line break or a curly quote was copied with it.",
            )
    document = _body(options, "extra_body")
    auth = options.take("auth", str, "bearer")
    if auth not in get_args(Auth):
        raise ManifestError(f"model.options.auth: is {', '.join(get_args(Auth))}, not {auth!r}")
    return RequestOptions(
        headers, _texts(options, "query"), document,
        document | _body(options, "query_extra_body"), auth,  # type: ignore[arg-type]
    )  # fmt: skip


def headers_of(variable: str, where: str) -> dict[str, str]:
    """The headers in an environment variable, `Name: value` on each line, as OpenAI's own client
    reads its OPENAI_CUSTOM_HEADERS. Their values are starred in all output.

    Raises:
        ProviderRefusedError: one is no header.
    """
    found = {}
    for place, line in enumerate(read_variable(variable).splitlines(), start=1):
        name, colon, value = (part.strip() for part in line.partition(":"))
        remember(value)
        if not colon:
            continue  # as that client does
        if not (_HEADER.fullmatch(name) and value.isascii() and value.isprintable()):
            raise ProviderRefusedError(
                f"{where}: line {place} of the environment variable {variable} is no header",
                "Write one on each line, as Name: value, or unset the variable.",
            )
        found[name] = value
    return found


def _texts(options: Options, key: str) -> dict[str, str]:
    found = options.take(key, dict, {})
    for name, value in found.items():
        if type(value) not in (str, int, float):
            raise ManifestError(f"model.options.{key}.{name}: is a text, not {value!r}")
    return {name: str(value) for name, value in found.items()}


def _body(options: Options, key: str) -> dict[str, Any]:
    found = options.take(key, dict, {})
    for name in found:
        if name in _OURS:
            raise ManifestError(
                f"model.options.{key}.{name}: is set by {_OURS[name]}", f"Leave it out of {key}."
            )
    return dict(found)
