"""Challenges of registries, and the way to a token."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgbuilder.core.challenges import (
    LONGEST_TOKEN,
    Challenge,
    InvalidChallengeError,
    basic_authorization,
    bearer_authorization,
    choose,
    parse_challenges,
    read_token,
    token_request,
)
from imgbuilder.core.permissions import Credentials, basic_credentials
from imgbuilder.core.secrets import Secret

SCOPE = "repository:library/ubuntu:pull"
HUB = Challenge("bearer", {"realm": "https://auth.test/token", "service": "registry.test"})

words = st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,8}", fullmatch=True)
values = st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=20)


@pytest.mark.parametrize(
    ("headers", "challenges"),
    [
        ([], []),
        ([""], []),
        ([" , ,, "], []),
        (["Basic"], [Challenge("basic")]),
        (['Basic realm="a b"'], [Challenge("basic", {"realm": "a b"})]),
        (
            ['Bearer realm="https://a.test/t",service="s",scope="repository:a:pull,push"'],
            [
                Challenge(
                    "bearer",
                    {"realm": "https://a.test/t", "service": "s", "scope": "repository:a:pull,push"},
                ),
            ],
        ),
        (['BEARER  Realm = "a" ,\tSERVICE=s'], [Challenge("bearer", {"realm": "a", "service": "s"})]),
        (
            ['Basic realm="x, Bearer realm=y", Bearer realm="z"'],
            [Challenge("basic", {"realm": "x, Bearer realm=y"}), Challenge("bearer", {"realm": "z"})],
        ),
        (['Basic realm="say \\"hi\\" \\\\"'], [Challenge("basic", {"realm": 'say "hi" \\'})]),
        (
            ['Basic realm="a"', 'Bearer realm="b"'],
            [Challenge("basic", {"realm": "a"}), Challenge("bearer", {"realm": "b"})],
        ),
        (["Negotiate, Basic realm=a"], [Challenge("negotiate"), Challenge("basic", {"realm": "a"})]),
        (["NTLM TlRMTVNTUAA=, Basic realm=a"], [Challenge("ntlm"), Challenge("basic", {"realm": "a"})]),
        (['Bearer realm="unterminated'], [Challenge("bearer", {"realm": "unterminated"})]),
        (["Bearer realm=https://a.test/token"], [Challenge("bearer", {"realm": "https://a.test/token"})]),
        (['Bearer realm="first",realm="second"'], [Challenge("bearer", {"realm": "first"})]),
        (
            ['Bearer error="invalid_token", Basic'],
            [Challenge("bearer", {"error": "invalid_token"}), Challenge("basic")],
        ),
    ],
)
def test_challenges_are_read(headers: list[str], challenges: list[Challenge]) -> None:
    """Several headers, several in one header, odd casing and spacing, quotes and escapes."""
    assert parse_challenges(headers) == challenges


@given(st.lists(st.tuples(words, st.dictionaries(words.map(str.lower), values, max_size=3)), max_size=4))
def test_reading_what_was_printed_gives_the_same(challenges: list[tuple[str, dict[str, str]]]) -> None:
    """Parse after print is the identity."""

    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    printed = ", ".join(
        f"{scheme} " + ", ".join(f"{name}={quoted(value)}" for name, value in parameters.items())
        for scheme, parameters in challenges
    )
    expected = [Challenge(scheme.lower(), parameters) for scheme, parameters in challenges]
    assert parse_challenges([printed]) == expected


@given(st.lists(st.text(alphabet='Basic ,="\\\t:/é', max_size=60), max_size=3))
def test_any_header_is_read_somehow(headers: list[str]) -> None:
    """Nothing that a registry may send makes the parser fail."""
    parse_challenges(headers)


@pytest.mark.parametrize("piece", ["a", "a ", "a=", 'a="', "a,", '\\"', "=", "Basic "])
@pytest.mark.timeout(5)
def test_hostile_headers_are_read_quickly(piece: str) -> None:
    """No header makes the parser backtrack without end."""
    parse_challenges([piece * 20_000])


@pytest.mark.parametrize(
    ("header", "scheme"),
    [
        ('Basic realm="a", Bearer realm="b"', "bearer"),
        ('Bearer realm="b", Basic realm="a"', "bearer"),
        ('Bearer service="b", Basic', "basic"),
        ("Negotiate", None),
        ("Bearer", None),
    ],
)
def test_the_challenge_to_answer(header: str, scheme: str | None) -> None:
    """Bearer before Basic, if it names where to go."""
    chosen = choose(parse_challenges([header]))
    assert (chosen.scheme if chosen else None) == scheme


def test_a_token_for_a_user() -> None:
    """A GET with the user's password."""
    request = token_request(HUB, scope=SCOPE, credentials=basic_credentials("u", "p"))
    address = urlsplit(request.url)
    assert (request.method, address.netloc, address.path) == ("GET", "auth.test", "/token")
    assert parse_qs(address.query) == {"service": ["registry.test"], "scope": [SCOPE]}
    assert request.authorization.reveal() == "Basic " + base64.b64encode(b"u:p").decode()
    assert not request.form


@pytest.mark.parametrize("credentials", [None, Credentials(auth=Secret("opaque"))])
def test_a_token_for_anybody(credentials: Credentials | None) -> None:
    """A GET that shows nothing."""
    request = token_request(HUB, scope=SCOPE, credentials=credentials)
    assert request.method == "GET"
    assert not request.authorization


def test_a_token_for_an_identity_token() -> None:
    """An OAuth2 POST, with nothing secret in the address."""
    credentials = Credentials(identity_token=Secret("refresh"), username="u", password=Secret("p"))
    request = token_request(HUB, scope=SCOPE, credentials=credentials)
    assert (request.method, request.url) == ("POST", "https://auth.test/token")
    assert not request.authorization
    assert parse_qs(request.form.reveal()) == {
        "grant_type": ["refresh_token"],
        "refresh_token": ["refresh"],
        "client_id": ["imgbuilder"],
        "service": ["registry.test"],
        "scope": [SCOPE],
    }


def test_a_token_for_two_repositories() -> None:
    """Docker's way has one parameter for each, OAuth2 one for both."""
    both = "repository:a:pull,push repository:b:pull"
    by_get = token_request(HUB, scope=both, credentials=None)
    assert parse_qs(urlsplit(by_get.url).query)["scope"] == both.split()
    by_post = token_request(HUB, scope=both, credentials=Credentials(identity_token=Secret("i")))
    assert parse_qs(by_post.form.reveal())["scope"] == [both]


def test_what_a_realm_has_already_is_kept() -> None:
    """Its query stays; userinfo and fragment go."""
    challenge = Challenge("bearer", {"realm": "https://user:pw@auth.test/token?account=a%20b#x"})
    request = token_request(challenge, scope=SCOPE, credentials=None)
    address = urlsplit(request.url)
    assert (address.netloc, address.fragment) == ("auth.test", "")
    assert parse_qs(address.query) == {"account": ["a b"], "scope": [SCOPE]}


@pytest.mark.parametrize(
    "realm",
    ["", "nonsense", "file:///etc/passwd", "https://", "https://[", "//auth.test/x", "https://a:99999/"],
)
def test_a_realm_that_is_no_address(realm: str) -> None:
    """It is refused before anything is sent."""
    with pytest.raises(InvalidChallengeError):
        token_request(Challenge("bearer", {"realm": realm}), scope=SCOPE, credentials=None)


@pytest.mark.parametrize(
    ("document", "lifetime"),
    [
        ({"token": "t", "expires_in": 300}, 300),
        ({"access_token": "t", "expires_in": 0.5}, 0.5),
        ({"token": "t", "access_token": "other"}, 60),
        ({"token": "t", "expires_in": 0}, 60),
        ({"token": "t", "expires_in": -5}, 60),
        ({"token": "t", "expires_in": "300"}, 60),
        ({"token": "t", "expires_in": True}, 60),
        ({"token": "t", "expires_in": 10**15}, 24 * 3600),
    ],
)
def test_a_token_is_read(document: dict[str, Any], lifetime: float) -> None:
    """Under either name; a lifetime that makes no sense is the default one."""
    token = read_token(json.dumps(document).encode())
    assert token.value == Secret("t")
    assert token.lifetime == lifetime


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"token": ""}',
        b'{"token": 5}',
        b'{"token": "two words"}',
        b'{"token": "a\\r\\nX-Evil: 1"}',
        b'{"token": "\\u00e9"}',
        b'{"token": "' + b"t" * (LONGEST_TOKEN + 1) + b'"}',
    ],
)
def test_what_is_no_token_is_refused(body: bytes) -> None:
    """Nothing gets into a header that does not belong there."""
    with pytest.raises(InvalidChallengeError):
        read_token(body)


def test_headers() -> None:
    """What credentials look like on the wire, and nowhere else."""
    assert basic_authorization(None) == Secret("")
    assert basic_authorization(Credentials(identity_token=Secret("i"))) == Secret("")
    assert basic_authorization(basic_credentials("", "p")).reveal() == "Basic OnA="
    assert bearer_authorization(Secret("t")).reveal() == "Bearer t"
    assert "OnA=" not in repr(basic_authorization(basic_credentials("", "p")))
