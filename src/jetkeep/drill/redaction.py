"""Keep secrets out of evidence: what a user's command line or its output may show by accident. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

HIDDEN = "[hidden]"
#: A variable of this name holds a secret; shorter values would hide ordinary words.
_SECRET_NAME = re.compile(r"PASS|TOKEN|SECRET|SEED|CRED|JWT|KEY|AUTH", re.IGNORECASE)
_SHORTEST = 6
_WORD = r"(?:password|passwd|passphrase|token|secret|seed|api[-_]?key|access[-_]?key)"
_VALUE = r"(?:\"[^\"]*\"|'[^']*'|[^\s,;\"']+)"
_PATTERNS = (
    # user:password@ of a URL
    (re.compile(r"(?<=://)[^/@\s\"']+(?=@)"), HIDDEN),
    # the seed of an nkey, a JWT
    (re.compile(r"\bS[ACNOUX][A-Z2-7]{40,}"), HIDDEN),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]+(?:\.[\w-]*)?"), HIDDEN),
    # --password X; password=X; "token": "X"
    (re.compile(rf"(-{_WORD}\s+){_VALUE}", re.IGNORECASE), rf"\1{HIDDEN}"),
    (re.compile(rf"({_WORD}[\"']?\s*[=:]\s*){_VALUE}", re.IGNORECASE), rf"\1{HIDDEN}"),
)


def secrets_of(environment: Mapping[str, str]) -> list[str]:
    """The values of variables whose names say that they are secret; paths are none."""
    return [
        value
        for name, value in environment.items()
        if _SECRET_NAME.search(name) and len(value) >= _SHORTEST and not value.startswith(("/", "~", "."))
    ]


def redacted(text: str, secrets: Iterable[str] = ()) -> str:
    """The text without these secrets and without what looks like one."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    for pattern, hidden in _PATTERNS:
        text = pattern.sub(hidden, text)
    return text
