"""Keep secrets out of messages: a provider may echo the key it was given."""

from __future__ import annotations

import re
from collections.abc import Iterable

from reembed.manifest.secrets import SECRET_PATTERNS

HIDDEN = "[hidden]"
LONGEST = 500
"""Characters of a provider's words that are kept; an HTML page is no message."""

_ECHOED = (
    *SECRET_PATTERNS,
    r"\bsk-[^\s\"',}]+",  # also the half-starred form that OpenAI echoes
    r"(?<=://)[^/@\s]+(?=@)",  # user and password in a URL
)


def redact(message: str, secrets: Iterable[str] = ()) -> str:
    """`message` on one line, shortened, without `secrets` or anything of the form of a key."""
    for secret in secrets:
        if secret:
            message = message.replace(secret, HIDDEN)
    for pattern in _ECHOED:
        message = re.sub(pattern, HIDDEN, message)
    message = " ".join(message.split())
    return message if len(message) <= LONGEST else message[:LONGEST] + "..."
