"""Credentials do not get into the log, wherever they stand."""

from __future__ import annotations

import json
import time
import traceback

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgbuilder.core.references import parse_reference
from imgbuilder.core.secrets import Secret
from imgbuilder.telemetry.redaction import _RULES, is_sensitive, redact, redacted, redacted_text

SECRET = "s3cr3t-Value/+=="


@pytest.mark.parametrize(
    "text",
    [
        f"Authorization: Basic {SECRET}",
        f"authorization: {SECRET}",
        f'Authorization: Digest username="a", response="{SECRET}"',
        f"{{'authorization': 'Bearer {SECRET}'}}",
        f"[(b'authorization', b'Bearer {SECRET}')]",
        f"got Bearer {SECRET}, wanted another",
        f"sent basic {SECRET}",
        f"https://user:{SECRET.replace('/', '')}@registry.example.com/v2/",
        f"https://{SECRET.replace('/', '')}@registry.example.com/v2/",
        f"GET https://storage.example.com/blob?X-Amz-Signature={SECRET}&x=1",
        f"POST /token?scope=a&refresh_token={SECRET}",
        f"x-gitpod-owner-token: {SECRET}",
        f"headers={{'x-gitpod-owner-token': '{SECRET}'}}",
        f'{{"auths": {{"docker.io": {{"auth": "{SECRET}"}}}}}}',
        f'{{"identitytoken": "{SECRET}"}}',
        f'{{"registry_token":"{SECRET}"}}',
        f"password={SECRET}",
        f"db_password: '{SECRET}'",
        f"aws_secret_access_key = {SECRET}",
        json.dumps(json.dumps({"docker.io": {"username": "u", "password": SECRET}})),
        f"Cookie: session={SECRET}; other={SECRET}",
    ],
)
def test_credentials_in_texts_are_hidden(text: str) -> None:
    """Headers, addresses, JSON, keyword arguments: the value is gone, the rest can be read."""
    clean = redacted_text(text)
    assert SECRET not in clean
    assert SECRET.replace("/", "") not in clean
    assert "***" in clean


@pytest.mark.parametrize(
    "text",
    [
        "basic authentication failed",
        'Bearer realm="https://auth.example.com/token",service="registry"',
        "the bearer token has expired",
        "invalid token: unexpected end",
        "cannot parse image reference 'localhost:5000/a@sha256:abc': invalid reference format",
        "https://registry.example.com/v2/library/ubuntu/manifests/latest@sha256",
        "GET /v2/?n=100&last=token",
        "no manifest for platform linux-amd64 found",
        "2024-01-01T00:00:00Z 127.0.0.1:8080 -> [::1]:9500",
        "secretary: Miss Moneypenny",
    ],
)
def test_ordinary_texts_stay_as_they_are(text: str) -> None:
    """What only looks like it is not touched."""
    assert redacted_text(text) == text


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "auth",
        "token",
        "ownerToken",
        "x-gitpod-owner-token",
        "identity_token",
        "Authorization",
        "API_KEY",
        "proxy-authorization",
        "password_hash",
        "clientSecret",
        "secretKey",
        "registrytoken",
        "credentials",
        "cookie",
    ],
)
def test_names_of_credentials(name: str) -> None:
    """Whatever their spelling."""
    assert is_sensitive(name)


@pytest.mark.parametrize(
    "name",
    [
        "author",
        "token_cache",
        "pull_secret_file",
        "tokens",
        "ref",
        "key",
        "auth_server",
        "",
        "path",
        "secretary",
    ],
)
def test_other_names(name: str) -> None:
    """A path or a count is no credential because its name begins with one."""
    assert not is_sensitive(name)


def test_values_are_hidden_by_name_at_any_depth() -> None:
    """In mappings within lists within mappings, and for values that are no texts."""
    event = redact(
        None,
        "info",
        {
            "event": "asked",
            "token": SECRET,
            "auth": {"username": "u"},
            "headers": [{"Authorization": SECRET, "accept": "*/*"}],
            "additional": {"docker.io": Secret(SECRET)},
            "password": b"bytes",
            "secret": Secret(""),
            "token_count": 3,
            "has_token": True,
        },
    )
    assert event == {
        "event": "asked",
        "token": "***",
        "auth": "***",
        "headers": [{"Authorization": "***", "accept": "*/*"}],
        "additional": {"docker.io": "***"},
        "password": "***",
        "secret": "",
        "token_count": 3,
        "has_token": True,
    }


def test_objects_become_texts() -> None:
    """A reference shows as people write it, a library's object as it prints itself, less what must be hidden."""
    request = httpx.Request("GET", f"https://u:{SECRET.replace('/', '')}@registry.example.com/v2/")
    error = RuntimeError(f"sent Bearer {SECRET}")
    clean = redacted(
        {
            "ref": parse_reference("ubuntu"),
            "request": request.url,
            "error": error,
            "secret_in_object": [Secret(SECRET)],
            "huge": 2**70,
            "set": frozenset({1}),
        }
    )
    assert clean["ref"] == "docker.io/library/ubuntu:latest"
    assert clean["error"] == "sent Bearer ***"
    assert clean["huge"] == str(2**70)
    assert clean["set"] == [1]
    assert SECRET not in json.dumps(clean)
    assert SECRET.replace("/", "") not in json.dumps(clean)


def test_tracebacks_lose_only_the_credentials() -> None:
    """The error of an error, and members of a group, too."""

    def fail() -> None:
        try:
            int(f"header Authorization: Basic {SECRET}")
        except ValueError as error:
            raise ExceptionGroup("several", [RuntimeError(f"https://u:p{SECRET[:6]}@host/")]) from error

    with pytest.raises(ExceptionGroup) as info:
        fail()
    clean = redacted_text("".join(traceback.format_exception(info.value)))
    assert SECRET not in clean
    assert SECRET[:6] not in clean
    assert "'header Authorization: ***" in clean
    assert "in fail" in clean


def test_nothing_makes_it_fail_or_grow_without_end() -> None:
    """Structures that contain themselves, very long texts."""
    loop: list[object] = []
    loop.append(loop)
    assert "…" in json.dumps(redacted(loop), ensure_ascii=False)
    assert len(redacted_text("a" * 1_000_000)) < 40_000


@pytest.mark.parametrize(
    "part",
    [
        "a",
        "a-",
        "://",
        "://a@",
        "http://",
        "basic ",
        "basic  ",
        "cookie",
        "cookie: ",
        "cookie \t",
        "?token",
        "&a.",
        "sig",
        "password",
        "password ",
        "password=",
        'password="',
        "password='\\",
        "token\\",
        '"token": "',
        "'auth' ",
        "\\",
        '\\"',
    ],
)
def test_no_text_takes_long(part: str) -> None:
    """Texts come from strangers; the time goes with their length and not with its square."""
    began = time.process_time()
    redacted_text(part * 32_000)
    assert time.process_time() - began < 1


_TOKENS = st.text("abcdefXYZ0123456789+/=._-", min_size=8, max_size=40).map(lambda text: f"Q9{text}9Q")


@given(
    _TOKENS,
    st.sampled_from(["Basic {}", "Authorization: Bearer {}", '"token": "{}"', "owner_token={}"]),
    st.text(max_size=20),
)
def test_no_token_survives_where_one_is_expected(token: str, form: str, before: str) -> None:
    """Whatever characters tokens have, and whatever stands around them."""
    assert token not in redacted_text(f"{before} {form.format(token)}, and more")


@given(
    st.recursive(
        st.none() | st.integers() | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_anything_becomes_json(value: object) -> None:
    """Whatever is logged, it can be written."""
    json.dumps(redacted(value))


PIECES = [
    "basic",
    "Bearer",
    "NEGOTIATE",
    "cookie",
    "auth",
    "orization",
    "http",
    "://",
    "passw",
    "ord",
    "secret",
    "access",
    "key",
    "to",
    "ken",
    "owner",
    "session",
    "id",
    "sig",
    "credential",
]
LETTERS = "a\u017f\u212a\u0130\u0131:=@?&;,'\" /-_"


@given(st.lists(st.sampled_from([*PIECES, *LETTERS]), max_size=14))
def test_a_text_without_hints_needs_no_rule(pieces: list[str]) -> None:
    """What is not looked at closely is what no rule would have changed; some letters have strange capitals."""
    text = expected = "".join(pieces)
    for pattern, replacement in _RULES:
        expected = pattern.sub(replacement, expected)
    assert redacted_text(text) == expected
