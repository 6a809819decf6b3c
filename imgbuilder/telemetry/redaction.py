"""Takes credentials out of what is logged, wherever they stand.

`imgbuilder.core.secrets.Secret` keeps our own values hidden; this is the net below it, for texts that come
from elsewhere: tracebacks, messages of libraries, addresses. It would rather hide too much than too little.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping
from collections.abc import Set as AbstractSet
from functools import lru_cache
from typing import Any, Final

from imgbuilder.core.secrets import Secret

HIDDEN: Final = "***"
LONGEST_TEXT: Final = 32 * 1024
DEEPEST: Final = 8

_SENSITIVE_WORDS: Final = frozenset({
    "accesskey", "apikey", "auth", "authorization", "cookie", "credential", "credentials", "identitytoken", "passwd",
    "password", "privatekey", "registrytoken", "secret", "secretkey", "token",
})  # fmt: skip
_WORD: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+")

# Every rule takes time in proportion to the text: it begins with a fixed word or character, and what repeats
# without bound after that is either used up by the match or can be divided in one way only.
_NAME: Final = (
    r"(?:passw(?:or)?d|client[-_]?secret|secret[-_]?(?:access[-_]?)?key|private[-_]?key|registry[-_]?auth"
    r"|(?:identity|registry|access|refresh|owner|id|session|api|auth|security)[-_]?(?:token|key))"
)
# in quotes, after quotes that are escaped themselves, or bare
_VALUE: Final = r"""(?:b?"(?:[^"\\]|\\.)*"?|b?'(?:[^'\\]|\\.)*'?|\\+["'][^"']*|[^\s,;&"'}\])]+)"""

_RULES: Final = tuple(
    (re.compile(pattern, re.IGNORECASE | re.VERBOSE), rf"\1{HIDDEN}")
    for pattern in (
        # The scheme of an Authorization header with its value, wherever they stand; no words of prose.
        r"""(\b(?:basic|bearer|negotiate)\s+)
            (?!(?:auth\w*|challenges?|credentials|tokens?|realm=|error=)(?:\W|\b))[\w+/.~=:-]{4,}""",
        # Headers that carry nothing but credentials: the rest of the line.
        r"(\b(?:authorization|cookie)\s*:\s*)[^\r\n]+",
        # user:password@ of an address
        r"(://)[^\s/?\#]+(?=@)",
        # parts of a query
        r"""([?&;][\w.%-]{0,40}?(?:access_?key|api_?key|credential|passw(?:or)?d|secret|sig|signature|token)
            [\w-]{0,20}=)[^\s&;"'<>]+""",
        # name: value, name=value, "name": "value", (b"name", b"value")
        rf"""({_NAME}(?:\\*["']?\s*[:=]|["']\s*,)\s*){_VALUE}""",
        # the same of names that are too ordinary to count without quotes
        rf"""(["'](?:proxy-)?(?:auth|authorization|cookie|secret|token)\\*["']\s*[:,]\s*){_VALUE}""",
    )
)

_HINTS: Final = (
    "=", "://", "auth", "basic", "bearer", "cookie", "key", "negotiate", "passw", "secret", "token",
)  # fmt: skip
"""Each rule needs one of these. Nearly every text that is logged has none, and looking for them is ten times faster."""


def redacted_text(text: str) -> str:
    """*text* without credentials, and cut where it is very long."""
    if len(text) > LONGEST_TEXT:
        text = text[:LONGEST_TEXT] + "…"
    if text.isascii():  # other letters have capitals of their own, which the rules know
        folded = text.lower()
        if not any(hint in folded for hint in _HINTS):
            return text
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text


@lru_cache(1024)  # the names are nearly always the same few
def is_sensitive(name: str) -> bool:
    """Whether the value of something of this name is a credential: ``ownerToken``, ``auth``, ``x-api-key``."""
    words = [word.lower() for word in _WORD.findall(name)]
    return any(
        "".join(words[-length:]) in _SENSITIVE_WORDS for length in (1, 2) if len(words) >= length
    ) or not {"password", "passwd", "authorization"}.isdisjoint(words)


def redacted(value: Any, depth: int = 0) -> Any:
    """*value* as JSON's types, without credentials."""
    clean: Any
    match value:
        case None | bool() | float():
            clean = value
        case int():
            clean = value if value.bit_length() < 64 else str(value)
        case Secret():
            clean = HIDDEN if value else ""
        case str():
            clean = redacted_text(value)
        case _ if depth >= DEEPEST:
            clean = "…"
        case Mapping():
            clean = {str(key): _entry(str(key), item, depth + 1) for key, item in value.items()}
        case list() | tuple() | AbstractSet():
            clean = [redacted(item, depth + 1) for item in value]
        case _:
            clean = redacted_text(str(value))
    return clean


def _entry(name: str, value: Any, depth: int) -> Any:
    # Numbers under such a name count something (``tokens_token=3``) or say whether it is there.
    if is_sensitive(name) and value and not isinstance(value, (bool, int, float)):
        return HIDDEN
    return redacted(value, depth)


def redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The structlog processor: *event* as JSON's types, without credentials."""
    return {name: _entry(name, value, 0) for name, value in event.items()}
