"""What a secret looks like: by its own form, by the name it stands under, by its place in a text.

The prefixes are those of gitleaks (config/gitleaks.toml), of detect-secrets (plugins/) and of the
providers' own documents; names follow detect-secrets' keyword plugin.
"""

from __future__ import annotations

import base64
import binascii
import re

KNOWN_FORMS = (
    r"\bsk-[A-Za-z0-9_-]{16,}",  # OpenAI, Anthropic, OpenRouter and those who copy their form
    r"\b[sr]k_(?:live|test|prod)_[A-Za-z0-9]{10,}",  # Stripe
    r"\bck-[A-Za-z0-9]{20,}",  # Chroma Cloud
    r"\b(?:A3T[A-Z0-9]|AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b",  # AWS
    r"\bABSK[A-Za-z0-9+/]{100,}",  # AWS Bedrock
    r"\bAIza[0-9A-Za-z_-]{30,}",  # Google
    r"\bGOCSPX-[A-Za-z0-9_-]{20,}",  # Google OAuth
    r"\bya29\.[A-Za-z0-9_-]{20,}",  # Google access token
    r"\b(?:hf|api_org)_[A-Za-z0-9]{20,}",  # Hugging Face
    r"\b(?:gsk|pa|jina|voyage|co|tvly|fw|r8|rpa|lsv2_pt|lsv2_sk)[_-][A-Za-z0-9]{20,}",
    r"\b(?:pcsk_|xai-|pplx-|csk-|nvapi-|tgp_v1_|esecret_)[A-Za-z0-9_-]{20,}",
    r"\bgh[pousr]_[A-Za-z0-9]{30,}",  # GitHub
    r"\bgithub_pat_[A-Za-z0-9_]{20,}",
    r"\bgl(?:pat|ptt|rt|dt|ft|cbt|soat|agent|imt|oas|ffct)-[A-Za-z0-9_.=-]{20,}",  # GitLab
    r"\bGR1348941[A-Za-z0-9_-]{20,}",
    r"\bATATT3[A-Za-z0-9_=-]{20,}",  # Atlassian
    r"\bATBB[A-Za-z0-9]{20,}",
    r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}",  # Slack
    r"\bxapp-\d-[A-Za-z0-9-]{10,}",
    r"hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9+/]{20,}",
    r"\bSG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}",  # SendGrid
    r"\bkey-[0-9a-f]{32}\b",  # Mailgun
    r"\b[0-9a-f]{32}-us\d{1,2}\b",  # Mailchimp
    r"\bSK[0-9a-f]{32}\b",  # Twilio
    r"\bdo[opr]_v1_[a-f0-9]{40,}",  # DigitalOcean
    r"\bdapi[a-f0-9]{32}",  # Databricks
    r"\bdp\.(?:pt|st|ct|sa|scim|audit)\.[A-Za-z0-9._-]{30,}",  # Doppler
    r"\bpypi-AgE[A-Za-z0-9_-]{30,}",
    r"\bnpm_[A-Za-z0-9]{30,}",
    r"\bdckr_(?:pat|oat)_[A-Za-z0-9_-]{20,}",  # Docker
    r"\bhv[sbr]\.[A-Za-z0-9_-]{20,}",  # Vault
    r"\bglc_[A-Za-z0-9+/]{30,}|\bglsa_[A-Za-z0-9]{30,}",  # Grafana
    r"\bpscale_(?:tkn|oauth|pw)_[A-Za-z0-9=._-]{30,}",  # PlanetScale
    r"\bsbp_[a-f0-9]{40}|\bsb_secret_[A-Za-z0-9_-]{20,}",  # Supabase
    r"\bnapi_[A-Za-z0-9]{40,}",  # Neon
    r"\bops_eyJ[A-Za-z0-9+/]{50,}",  # 1Password
    r"\bAGE-SECRET-KEY-1[A-Z0-9]{50,}",
    r"\bshp(?:at|ca|pa|ss)_[A-Fa-f0-9]{32}",  # Shopify
    r"\blin_api_[A-Za-z0-9]{30,}",  # Linear
    r"\bntn_[A-Za-z0-9]{40,}|\bsecret_[A-Za-z0-9]{43}\b",  # Notion
    r"\bPMAK-[A-Za-z0-9-]{40,}",  # Postman
    r"\bNRAK-[A-Z0-9]{27}\b",  # New Relic
    r"\bAccountKey=[A-Za-z0-9+/=]{40,}",  # Azure
    r"\beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.",  # JSON web token
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----[^-]*(?:-----END [A-Z0-9 ]*-----)?",
    r"(?i)\bbearer\s+[A-Za-z0-9._~+/-]{12,}",
)
"""Secrets known by their own form, wherever they stand."""

_VARIABLE = r"(?![\"']?(?:(?:basic|bearer|token|digest|apikey)\s+)?[\"']?[$`{<%])"
"""What follows is not filled in later, as `$TOKEN`, `{metadata.token}` and `<token>` are."""
_NAME = (
    r"(?:password|passwd|passphrase|\bpwd|api[_-]?key|(?:secret|private|access|account|auth|client"
    r"|subscription|shared|signing|encryption)[_-]?key|secret|(?<!max.)token|credentials?)"
)
_HEADER = (
    r"(?:x-[\w-]*(?:key|token|secret|auth\w*|password)|(?:proxy-)?authorization|api-?key|"
    r"(?:ocp-apim-)?subscription-key|(?:set-)?cookie|(?:private|auth|access|session)[-_]token|"
    r"password|passwd|passphrase|pwd)"
)
IN_PLACE = (
    r"://[^/@\s:]*:[^/\s@]+@",  # a URL's user:password@
    # A URL's or a command's name=value.
    rf"(?i){_NAME}=(?![\"']?[$`{{<])[^\s&]+",
    rf"(?i)(?:^|[\s\"'`(]){_HEADER}[\"']?\s*:\s*{_VARIABLE}[\"']?[^\s\"']{{4,}}",
    rf"(?i)(?:^|\s)(?:-u|--user|--proxy-user)[=\s]+[\"']?[^\s:\"'$]+:{_VARIABLE}[^\s\"']{{3,}}",
    rf"(?i)\s--[\w-]*(?:password|passwd|token|secret|api-?key)[=\s]+(?!-){_VARIABLE}\S{{3,}}",
)
"""Secrets known by what stands before them."""

SECRET_PARAMETERS = frozenset(
    {"access_token", "apikey", "api_key", "api-key", "auth", "code", "credential", "credentials",
     "functionskey", "jwt", "k", "key", "pass", "passwd", "password", "pwd", "sas", "secret", "sig",
     "signature", "sslpassword", "subscription-key", "token", "x-amz-credential",
     "x-amz-security-token", "x-amz-signature", "x-functions-key", "x-goog-signature"}
)  # fmt: skip
"""Names of a URL's query whose values are secrets; any that `is_secret_name` takes as well."""

_ENDS = (
    "password", "passwd", "passphrase", "apikey", "secretkey", "privatekey", "accesskey",
    "accountkey", "authkey", "servicekey", "clientkey", "appkey", "subscriptionkey", "signingkey",
    "encryptionkey", "masterkey", "sharedkey", "functionskey", "secret", "secrets", "credential",
    "credentials", "creds", "authorization",
)  # fmt: skip
_NO_SECRET = frozenset(
    {"bos", "cls", "eos", "image", "mask", "max", "max_new", "new", "next", "pad", "per", "prefix",
     "sep", "special", "start", "stop", "unk", "continuation", "page"}
)  # fmt: skip
"""Whose `..._token` is a word of tokenizers and pages, not a secret."""


def is_secret_name(name: str) -> bool:
    """Whether what stands under this name is a secret: `session_token`, `pwd`, `X-Api-Key`."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    words = re.sub(r"[^a-z0-9]+", "_", words).strip("_")
    last = words.rpartition("_")[2]
    if last in ("pwd", "pass", "passcode", "bearer", "jwt", "sas"):
        return True
    if words.endswith("token"):
        before = words.removesuffix("token").rstrip("_")
        return before not in _NO_SECRET and before.rpartition("_")[2] not in _NO_SECRET
    return words.replace("_", "").endswith(_ENDS)


def known_form(text: str) -> bool:
    """Whether a text holds a secret that is known by its own form."""
    return any(re.search(pattern, text) for pattern in KNOWN_FORMS) or bool(_basic(text))


_BASIC = re.compile(r"(?i)\bbasic\s+([A-Za-z0-9+/_-]{8,}={0,2})")


def _basic(text: str) -> list[str]:
    """Credentials after `Basic`, which decode to `user:password`; not the words of a sentence."""
    found = []
    for match in _BASIC.finditer(text):
        coded = match[1].rstrip("=").replace("-", "+").replace("_", "/")
        try:
            decoded = base64.b64decode(coded + "=" * (-len(coded) % 4), validate=True)
        except (binascii.Error, ValueError):
            continue
        if b":" in decoded and decoded.isascii():
            found.append(match[1])
    return found


_HALF_STARRED = r"\b[A-Za-z]{2,6}[-_][A-Za-z0-9_-]*\*{3,}[^\s\"',}]*"
"""A key as OpenAI echoes it: `sk-abc***wxyz`."""


def starred_forms(text: str, hidden: str) -> str:
    """`text` with every secret that is known by its own form replaced."""
    for secret in _basic(text):
        text = text.replace(secret, hidden)
    for pattern in (*KNOWN_FORMS, _HALF_STARRED):
        text = re.sub(pattern, hidden, text)
    return text
