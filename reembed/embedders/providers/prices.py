"""What providers ask for a million tokens, each with the day on which it was looked up.

OpenAI's are its own page's. The others were confirmed where somebody else lists them, not on the
provider's own page; docs/providers.md names the sources, and prices that nobody confirms.
"""

from __future__ import annotations

from reembed.embedders.provider import Price

OPENAI = "api.openai.com"
_OWN, _LISTED = "2026-11-21", "2026-11-29"
_PRICES: dict[tuple[str, str], Price] = {  # US dollars, synchronous
    (OPENAI, "text-embedding-3-small"): Price(0.02, _OWN),
    (OPENAI, "text-embedding-3-large"): Price(0.13, _OWN),
    (OPENAI, "text-embedding-ada-002"): Price(0.10, _OWN),
    ("api.voyageai.com", "voyage-3.5"): Price(0.06, _LISTED),
    ("api.voyageai.com", "voyage-3.5-lite"): Price(0.02, _LISTED),
    ("generativelanguage.googleapis.com", "gemini-embedding-001"): Price(0.15, _LISTED),
    ("api.mistral.ai", "mistral-embed"): Price(0.10, _LISTED),
}


def listed_price(host: str, model: str) -> Price | None:
    """The price of a model at its provider's own host; None where none is known."""
    return _PRICES.get((host.lower(), model))
