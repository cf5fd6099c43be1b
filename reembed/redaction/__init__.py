"""Secrets and control characters stay out of everything that reembed says or writes down.

A secret is known by its value (`known`), from the moment that the process reads it, and starred in
every encoding it may come back in (`search`). What looks like one by its form alone (`forms`) is
refused in a manifest and starred in the words of others. `terminal` takes the teeth out of what a
terminal would act on.
"""

from reembed.redaction.known import allow, read_variable, remember, remember_in, remember_url
from reembed.redaction.search import HIDDEN, redacted, redacted_data, redacted_values
from reembed.redaction.urls import shown_url, without_secrets

__all__ = [
    "HIDDEN",
    "allow",
    "read_variable",
    "redacted",
    "redacted_data",
    "redacted_values",
    "remember",
    "remember_in",
    "remember_url",
    "shown_url",
    "without_secrets",
]
