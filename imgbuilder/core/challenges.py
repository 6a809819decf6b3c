"""How a registry wants to be convinced: its challenges, and the way from a challenge to a token.

The token flow is sans-IO: `token_request` says what to send, `read_token` what the answer means.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

import orjson

from imgbuilder.core.errors import ImgbuilderError
from imgbuilder.core.permissions import Credentials
from imgbuilder.core.secrets import Secret

CLIENT_ID: Final = "imgbuilder"
DEFAULT_LIFETIME: Final = 60.0
"""Seconds; of a token whose server does not say how long it lives."""

LONGEST_LIFETIME: Final = 24 * 3600.0
LONGEST_TOKEN: Final = 32 * 1024
"""Characters. A token travels in a header, and servers refuse headers much shorter than this."""

_WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_SCHEME: Final = re.compile(rf"[\s,]*({_WORD})(?:[ \t]+|(?=,)|$)")
_TOKEN68: Final = re.compile(r"[ \t]*[A-Za-z0-9._~+/-]+=*[ \t]*(?:,|$)")
_PARAMETER: Final = re.compile(
    rf'[\s,]*(?P<name>{_WORD})[ \t]*=[ \t]*(?:"(?P<quoted>(?:[^"\\]|\\.)*)(?:"|$)|(?P<plain>[^\s,"]*))',
    re.DOTALL,
)
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_PRINTABLE: Final = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way of authenticating that a server offers.

    :ivar scheme: in lower case, e.g. ``bearer``.
    :ivar parameters: by their names in lower case.
    """

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def answered_by(self) -> tuple[str, str, str]:
        """The same for challenges that the same server answers: scheme, realm and service."""
        return self.scheme, self.parameters.get("realm", ""), self.parameters.get("service", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRequest:
    """What to ask a token server.

    :ivar authorization: the value of that header; empty for none.
    :ivar form: the body, form-encoded; empty for none. It contains secrets.
    """

    method: str
    url: str
    authorization: Secret
    form: Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What a token server gives.

    :ivar lifetime: in seconds from the moment it was received.
    """

    value: Secret
    lifetime: float


class InvalidChallengeError(ImgbuilderError):
    """A registry's challenge, or the answer of its token server, can't be used."""


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """The challenges in the values of all WWW-Authenticate headers, in order (RFC 9110, section 11.6.1).

    Several may stand in one value, separated by the same commas as their parameters. Never raises: what can't
    be read ends the value it stands in.
    """
    challenges: list[Challenge] = []
    for header in headers:
        challenges.extend(_parse_value(header))
    return challenges


def choose(challenges: Iterable[Challenge]) -> Challenge | None:
    """The challenge to answer: Bearer before Basic, whatever their order; None if neither is offered."""
    offered = list(challenges)
    for scheme in ("bearer", "basic"):
        for challenge in offered:
            if challenge.scheme == scheme and (scheme == "basic" or challenge.parameters.get("realm")):
                return challenge
    return None


def token_request(challenge: Challenge, *, scope: str, credentials: Credentials | None) -> TokenRequest:
    """How to get a token of *scope* from the server that a Bearer *challenge* names.

    With an identity token by OAuth2 POST, otherwise by GET: with Basic, or anonymously.

    :param scope: one or more, separated by spaces.
    :raises InvalidChallengeError: if the realm is no address to ask.
    """
    realm = _realm(challenge)
    service = challenge.parameters.get("service")
    asked = [("service", service)] if service else []
    # Userinfo in a realm would be sent as credentials that nobody gave us.
    address = realm._replace(netloc=realm.netloc.rpartition("@")[2], fragment="")
    if credentials is not None and credentials.identity_token:
        form = [
            ("grant_type", "refresh_token"),
            ("refresh_token", credentials.identity_token.reveal()),
            ("client_id", CLIENT_ID),
            *asked,
            ("scope", scope),
        ]
        return TokenRequest(
            method="POST",
            url=urlunsplit(address),
            authorization=Secret(""),
            form=Secret(urlencode(form)),
        )
    scopes = [("scope", part) for part in scope.split()]
    url = urlunsplit(address._replace(query=urlencode(parse_qsl(realm.query) + asked + scopes)))
    return TokenRequest(
        method="GET",
        url=url,
        authorization=basic_authorization(credentials),
        form=Secret(""),
    )


def read_token(body: bytes) -> Token:
    """The token in the body of a token server's answer.

    :raises InvalidChallengeError: if there is none that could be used.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidChallengeError("its token server does not answer in JSON") from error
    if not isinstance(document, dict):
        raise InvalidChallengeError("its token server does not answer with a JSON object")
    value = document.get("token") or document.get("access_token")
    if not isinstance(value, str) or not _PRINTABLE.fullmatch(value):
        raise InvalidChallengeError("its token server gives no token")
    if len(value) > LONGEST_TOKEN:
        raise InvalidChallengeError("its token server gives a token that is too long")
    return Token(value=Secret(value), lifetime=_lifetime(document.get("expires_in")))


def basic_authorization(credentials: Credentials | None) -> Secret:
    """The Authorization header for a user with a password; empty if *credentials* are not of that kind."""
    if credentials is None or not (credentials.username or credentials.password):
        return Secret("")
    pair = f"{credentials.username}:{credentials.password.reveal()}"
    return Secret(f"Basic {base64.b64encode(pair.encode()).decode()}")


def bearer_authorization(token: Secret) -> Secret:
    """The Authorization header for a token."""
    return Secret(f"Bearer {token.reveal()}")


def _realm(challenge: Challenge) -> SplitResult:
    fault = "the realm of its challenge is no HTTP address"
    try:
        realm = urlsplit(challenge.parameters.get("realm", ""))
        proper = realm.scheme in {"https", "http"} and realm.hostname and realm.port != 0
    except ValueError as error:
        raise InvalidChallengeError(fault) from error
    if not proper:
        raise InvalidChallengeError(fault)
    return realm


def _parse_value(header: str) -> list[Challenge]:
    challenges: list[Challenge] = []
    position = 0
    while scheme := _SCHEME.match(header, position):
        position = scheme.end()
        parameters: dict[str, str] = {}
        token68 = _TOKEN68.match(header, position)
        if token68 is not None and scheme[0][-1:] in " \t":
            position = token68.end()
        else:
            while parameter := _PARAMETER.match(header, position):
                position = parameter.end()
                quoted = parameter["quoted"]
                value = parameter["plain"] if quoted is None else _ESCAPED.sub(r"\1", quoted)
                parameters.setdefault(parameter["name"].lower(), value)
        challenges.append(Challenge(scheme[1].lower(), parameters))
    return challenges


def _lifetime(expires_in: Any) -> float:
    if isinstance(expires_in, bool) or not isinstance(expires_in, int | float) or expires_in <= 0:
        return DEFAULT_LIFETIME
    return float(min(expires_in, LONGEST_LIFETIME))
