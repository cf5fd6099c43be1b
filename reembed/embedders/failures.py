"""What a failed request means, decided in one place from its status, its headers and its words.

Providers, gateways and libraries tell the same failure in many ways. Whatever came ends as one of

- QuotaError: nothing more comes until somebody pays;
- RejectedInputError: its texts, their length, or their number and size are to blame;
- ProviderRefusedError: a key, a name or an address is wrong, as it seems;
- TransientError: it may pass. What nobody knows is taken for that, never for a text's fault.

What a status or a word suggests is not yet believed: `sending/` asks again, and holds a plain
sentence against it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from reembed.embedders.headers import retry_after, seconds
from reembed.embedders.provider import RejectedInputError, Told, TransientError
from reembed.errors import ProviderRefusedError, QuotaError

TRANSIENT_STATUSES = frozenset({408, 409, 423, 425, 429})
"""With 5xx: what may pass. 409 as in the openai client, 425 is RFC 8470's "too early"."""
UNPAID_STATUSES = frozenset({409, 425, 429, 500, 503, 529})
"""What says that the work was not done. 408, 502 and 504 come from somebody who stopped waiting for
it, so it may have been."""
BUSY_STATUSES = frozenset({425, 429, 503, 529})
CONTENT_STATUSES = frozenset({400, 413, 422})
"""The texts are to blame, or too many of them: infinity says 422 to 2,049 texts."""


NEVER_STATUSES = frozenset({501, 505})
"""Of 5xx: what the same request gets for ever."""
FORM_STATUSES = frozenset({406, 415, 501})
"""What may be said of how an answer was asked for, and not of a key, a name or an address."""


def _words(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


_QUOTA = _words(
    r"insufficient[_ ]quota", r"billing[_ ](hard[_ ])?(limit|not[_ ]active)", r"payment required",
    r"exceeded ?budget", r"budget (has been )?exceeded", r"freetieronly", r"arrearage",
    r"insufficient[_ ](credit|balance|funds)", r"(not enough|out of|no( more)?) (credit|balance)",
    r"(credit|balance|funds)s? (is|are|has been|have been)? ?(too low|exhausted|insufficient"
    r"|used up|depleted)", r"servicequotaexceeded", r"spend(ing)? (limit|cap)",
    r"(exceeded|exhausted|used up|run out of|depleted)[^.]{0,40}(credits?|balance|funds)\b",
)  # fmt: skip
"""What says so whatever else is said."""
_PERHAPS_QUOTA = _words(
    r"exceeded your (current |monthly |daily )?quota", r"quota (has been |is )?(exhausted|used up)",
    r"(monthly|daily|free)[^.]{0,40}(quota|limit)[^.]{0,20}(exceeded|exhausted|reached|used up)",
    r"monthly[^.]{0,30}(quota|allowance|limit)",
)  # fmt: skip
"""Google says the same of a minute's quota and of the whole; what it adds tells them apart."""
_SHORT_LIVED = _words(
    r"per[-_ ]?(minute|second)", r"\b[RT]PM\b", r"retrydelay", r"throttl",
    r"(try again|retry|wait)[^.]{0,20}\d",
)  # fmt: skip
_TOO_LARGE = _words(
    r"request (is )?too large", r"(payload|entity|body|request)[^.]{0,30}too large",
    r"batch[ _]?size", r"max_client_batch_size", r"(body|payload|content)[^.]{0,20}"
    r"(limit|exceed|maximum)", r"too many (inputs?|texts?|items|documents|strings|instances)",
    r"(inputs?|texts?|items|documents|array|list|instances)[^.]{0,40}(at most|no more than"
    r"|maximum of|up to|exceeds? (the )?max)[^.]{0,20}\d+( (inputs?|texts?|items|documents))?",
    r"(at most|maximum( of)?|up to|more than|limit of) \d+ (inputs?|texts?|items|documents|strings"
    r"|instances)", r"max_tokens_per_request", r"tokens per (request|batch)",
    r"(total|sum)[^.]{0,30}tokens", r"number of (input|text|item|document)",
    r"array too long", r"array_above_max_length",
)  # fmt: skip
_TOO_LONG = _words(
    r"too (large to process|long)", r"(have|has|than|maximum|max|limit)[^.]{0,30}\btokens\b",
    r"too many tokens", r"context[ _](length|size|window)", r"maximum (context|model|input|sequence"
    r"|prompt)( \w+)? ?len", r"max(imum)?[_ ](input|sequence|model)?[_ ]?(tokens|len(gth)?)",
    r"exceeds? .{0,60}(tokens|length|limit|characters|context)", r"\d+ (characters|chars)",
    r"(range of )?input length", r"sequence length", r"longer than",
)  # fmt: skip
_LLAMA_TOO_LONG = _words(
    r"input .*too (large to process|long)", r"exceeds? the context", r"too many tokens"
)
"""llama.cpp says 500 to an input that is too long for it, and some gateways to all of them."""
_KEY = _words(
    r"(api|access)[-_ ]?key[^.]{0,30}(invalid|not valid|incorrect|missing|expired|required)",
    r"(invalid|incorrect|wrong|missing|no|expired) (api|access)[-_ ]?key", r"unauthenticated",
    r"authentication (failed|required|error)",
)  # fmt: skip
POLICY = _words(
    r"polic", r"moderat", r"flagged", r"content[-_ ]?(filter|management)", r"safety", r"blocked",
    r"harmful", r"prohibited",
)  # fmt: skip
"""A refusal of what a text says: a shorter piece of it would be another text."""
_NO_EMBEDDINGS = _words(
    r"(does not|doesn't|not) support[^.]{0,20}embed", r"not an embeddings? model",
    r"embeddings? (api )?(is|are) (not supported|disabled|not enabled)",
)  # fmt: skip
"""What a server says that cannot embed with this model, with whatever status."""
_PASSING = _words(
    r"rate[-_ ]?limit", r"too many requests", r"resource[_ ]?exhausted", r"throttl", r"overloaded",
    r"unavailable", r"temporar", r"timed? ?out", r"deadline[_ ]exceeded", r"bad gateway",
    r"connection (reset|refused|aborted|error|closed)", r"internal (server )?error", r"try again",
)  # fmt: skip


def failure(
    status: int | None, words: str, headers: Mapping[str, str], where: str, key_variable: str
) -> Exception:
    """The error that a failed request stands for.

    Args:
        status: of HTTP, or what stands for it in an error's body; None where there is none.
        words: the body's message, redacted.
        key_variable: the environment variable that the key is taken from.
    """
    found = _meaning(status, words, headers, where, key_variable)
    if isinstance(found, ProviderRefusedError):
        found.of_form = status in FORM_STATUSES
    return found


def _meaning(
    status: int | None, words: str, headers: Mapping[str, str], where: str, key_variable: str
) -> Exception:
    number = "" if words.startswith(str(status)) else str(status or "")
    said = ": ".join(part for part in (number, words) if part)
    if _is_quota(status, words):
        return QuotaError(
            f"{where}: the account's quota is used up ({said})",
            "Add credit or raise its limit, then run the same command again: what is finished is "
            "kept.",
        )
    if _KEY.search(words) and (status is None or 400 <= status <= 500):
        return _wrong_key(where, said, key_variable)
    told = told_limit(words)
    if status == 429 and told.requested and re.search(r"too large", words, re.IGNORECASE):
        return RejectedInputError(said, too_large=True, told=told)
    if status in CONTENT_STATUSES or (status == 500 and _LLAMA_TOO_LONG.search(words)):
        large = bool(_TOO_LARGE.search(words)) and not _LLAMA_TOO_LONG.search(words)
        long = bool(_TOO_LONG.search(words)) and not large
        return RejectedInputError(said, too_long=long, too_large=large, told=told)
    if status in NEVER_STATUSES or _NO_EMBEDDINGS.search(words):
        return ProviderRefusedError(
            f"{where}: {said}",
            "Name a model that is made for embeddings, and see that its server was started to "
            "give them.",
        )
    if status is None or status in TRANSIENT_STATUSES or status >= 500 or _PASSING.search(words):
        return _transient(status, said, headers)
    if status == 401 or (status == 403 and not key_variable):
        return _wrong_key(where, said, key_variable)
    if status == 403:
        return ProviderRefusedError(
            f"{where}: access is refused ({said})",
            f"See that the key in {key_variable} may use this model, and that no firewall stands "
            "in between.",
        )
    return ProviderRefusedError(f"{where}: {said}", "Check model.name and model.base_url.")


def _transient(status: int | None, said: str, headers: Mapping[str, str]) -> TransientError:
    wait = retry_after(headers)
    if wait is None and (found := _ASKED.search(said)):
        wait = seconds(found.group(1).replace(" ", ""))
    limited = status == 429 or (status is None and bool(_RATE.search(said)))
    return TransientError(
        said or "it failed without a word", wait, rate_limited=limited,
        unpaid=status in UNPAID_STATUSES, busy=status in BUSY_STATUSES,
        unknown=status is None and not _PASSING.search(said),
    )  # fmt: skip


_ASKED = re.compile(
    r"(?:try again|retry|retrydelay\W{1,4}|wait)(?: in| after)? ?([\d.]+ ?m?s)", re.I
)
_RATE = _words(r"rate[-_ ]?limit", r"too many requests", r"resource[_ ]?exhausted", r"throttl")


def _is_quota(status: int | None, words: str) -> bool:
    if status == 402 or _QUOTA.search(words):
        return True
    return bool(_PERHAPS_QUOTA.search(words)) and not _SHORT_LIVED.search(words)


def _wrong_key(where: str, said: str, key_variable: str) -> ProviderRefusedError:
    return ProviderRefusedError(
        f"{where}: the key is refused ({said})",
        f"The key is taken from {key_variable}: see that it is whole, still valid, and one of "
        "this provider's."
        if key_variable
        else "No key was sent: name the variable that holds this server's in model.api_key_env.",
    )


_NUMBER = r"(\d[\d,_]*\d|\d)(?: ?([kKmM])i?[bB]\b)?"
_LIMIT = re.compile(
    r"(?:at most|current batch size|maximum|max\b|max_\w+|limit|larger than|greater than"
    r"|more than|less than|up to|fewer than|exceeds?|<=|\u2264|\[\d+, ?)[^\d.;]{0,48}?"
    + _NUMBER,
    re.IGNORECASE,
)  # fmt: skip
_REQUESTED = re.compile(
    r"(?:requested|given|got|received|provided|sent|has|have|you passed|resulted in|contains?)"
    r"[^\d.;]{0,24}" + _NUMBER, re.IGNORECASE
)  # fmt: skip
_UNITS = (
    ("bytes", re.compile(r"bytes|\d ?[km]i?b\b|payload|body|characters|chars", re.IGNORECASE)),
    ("items", re.compile(r"batch|inputs\b|texts|items|documents|array|list|instances", re.I)),
    ("tokens", re.compile(r"token|context|tpm", re.IGNORECASE)),
)


def told_limit(words: str) -> Told:
    """The limit that a refusal names, e.g. 5,000 of `Limit 5000, Requested 5998`; what it does not
    name is None."""
    words = re.sub(r"<[^<>]*>", " ", words)  # the headings of a page are no numbers
    if re.search("token|tpm", words, re.IGNORECASE):
        unit: str | None = "tokens"
    else:
        unit = next((name for name, pattern in _UNITS if pattern.search(words)), None)
    limits = [_value(*found) for found in _LIMIT.findall(words)]
    sent = [_value(*found) for found in _REQUESTED.findall(words)]
    limits = [limit for limit in limits if limit > 0]
    limit = min(limits, default=None)
    requested = max((n for n in sent if limit is not None and n > limit), default=None)
    if limit is not None and requested is None:  # "Batch size 64 > maximum ... 32"
        numbers = (int(n) for n in re.findall(r"(?<![\d.])\d{1,9}(?![\d.])", words))
        requested = max((n for n in numbers if n > limit), default=None)
    return Told(limit, requested, unit)  # type: ignore[arg-type]


def _value(digits: str, scale: str) -> int:
    number = int(re.sub("[,_]", "", digits)[:12])
    return number * {"": 1, "k": 1024, "m": 1024**2}[scale.lower()]
