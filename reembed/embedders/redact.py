"""The words of a provider for a message: on one line, shortened, without secrets.

A provider may echo the key it was given, whole or half starred.
"""

from __future__ import annotations

from reembed.redaction import redacted

LONGEST = 500
"""Characters of a provider's words that are kept; an HTML page is no message."""


def redact(message: str, longest: int = LONGEST) -> str:
    """`message` on one line, shortened to `longest` characters, without secrets."""
    # Before it is cut: half a secret would not be found.
    message = " ".join(redacted(message).split())
    return message if len(message) <= longest else message[:longest] + "..."
