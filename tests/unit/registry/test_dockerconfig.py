"""Docker's config.json."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgbuilder.core.permissions import Credentials, basic_credentials
from imgbuilder.core.secrets import Secret
from imgbuilder.registry.dockerconfig import (
    DOCKER_HUB_KEY,
    DockerConfig,
    DockerConfigError,
    Helper,
    host_of,
    parse_docker_config,
)


def parsed(**sections: Any) -> DockerConfig:
    """What a file with *sections* says."""
    return parse_docker_config(json.dumps(sections).encode())


def encoded(text: str) -> str:
    """As an ``auth``."""
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("key", "host"),
    [
        ("ghcr.io", "ghcr.io"),
        ("GHCR.io", "ghcr.io"),
        ("localhost:5000", "localhost:5000"),
        ("https://ghcr.io", "ghcr.io"),
        ("http://ghcr.io:80/v2/", "ghcr.io:80"),
        ("ghcr.io/v1/", "ghcr.io"),
        (DOCKER_HUB_KEY, "docker.io"),
        ("index.docker.io", "docker.io"),
        ("registry-1.docker.io", "docker.io"),
        ("docker.io", "docker.io"),
    ],
)
def test_a_key_means_a_host(key: str, host: str) -> None:
    """Addresses are fine, and so are the names that Docker Hub had."""
    assert host_of(key) == host
    assert parsed(auths={key: {"auth": encoded("u:p")}}).credentials(host) == basic_credentials("u", "p")


def test_the_plain_key_counts() -> None:
    """Wherever it stands among others for the same host."""
    entries = {f"https://{host}": {"auth": encoded("other:p")} for host in ("a.test", "b.test")}
    entries = {"a.test": {"auth": encoded("u:p")}, **entries, "b.test": {"auth": encoded("u:p")}}
    config = parsed(auths=entries)
    assert config.credentials("a.test") == config.credentials("b.test") == basic_credentials("u", "p")


@pytest.mark.parametrize(
    ("entry", "credentials"),
    [
        ({"auth": encoded("u:p")}, basic_credentials("u", "p")),
        ({"auth": encoded("u:p:q")}, basic_credentials("u", "p:q")),
        ({"auth": encoded("u:p\0\0")}, basic_credentials("u", "p")),
        ({"auth": encoded("u:")}, basic_credentials("u", "")),
        ({"username": "u", "password": "p"}, basic_credentials("u", "p")),
        ({"username": "x", "password": "y", "auth": encoded("u:p")}, basic_credentials("u", "p")),
        ({"identitytoken": "i"}, Credentials(identity_token=Secret("i"))),
        ({"registrytoken": "r"}, Credentials(registry_token=Secret("r"))),
        ({"email": "a@b.test"}, None),
        ({}, None),
        (None, None),
    ],
)
def test_an_entry(entry: Any, credentials: Credentials | None) -> None:
    """In each of the ways that Docker writes it; an auth is split at the first colon."""
    assert parsed(auths={"a.test": entry}).credentials("a.test") == credentials
    assert parsed(auths={"a.test": entry}).credentials("other.test") is None


def test_helpers() -> None:
    """A registry's own comes before the one for all; Docker Hub goes by its historic name."""
    config = parsed(credHelpers={"gcr.io": "gcloud", "docker.io": "hub", "x.test": ""}, credsStore="desktop")
    assert config.helper("gcr.io") == Helper(name="gcloud", server="gcr.io")
    assert config.helper("docker.io") == Helper(name="hub", server=DOCKER_HUB_KEY)
    assert config.helper("x.test") == Helper(name="desktop", server="x.test")
    assert parsed(credsStore="desktop").helper("docker.io") == Helper(name="desktop", server=DOCKER_HUB_KEY)
    assert parsed().helper("gcr.io") is None


def test_what_docker_writes_besides_does_not_matter() -> None:
    """Settings of other kinds are left alone."""
    config = parsed(HttpHeaders={"User-Agent": "x"}, currentContext="y", auths=None, credHelpers=None)
    assert config == DockerConfig()


@pytest.mark.parametrize(
    ("contents", "fault"),
    [
        (b"", "is not JSON"),
        (b'{"auths": {"a": {"auth": "hunter2', "is not JSON"),
        (b"[]", "is no JSON object"),
        (b'{"auths": []}', None),
        (b'{"auths": ["hunter2"]}', "auths is no JSON object"),
        (b'{"auths": {"a.test": "hunter2"}}', r"auths\[a\.test\] is not as Docker writes it"),
        (b'{"auths": {"a.test": {"password": 5}}}', r"auths\[a\.test\] is not as Docker writes it"),
        (b'{"auths": {"a.test": {"auth": "hunter2!"}}}', r"auths\[a\.test\]\.auth is not base64$"),
        (b'{"auths": {"a.test": {"auth": "aHVudGVyMg=="}}}', "is not base64 of user:password"),
        (b'{"credHelpers": {"a.test": "../hunter2"}}', r"credHelpers\[a\.test\] is no name of a helper"),
        (b'{"credsStore": ["hunter2"]}', "credsStore is no name of a helper"),
    ],
)
def test_a_file_that_can_not_be_used(contents: bytes, fault: str | None) -> None:
    """The error says where, and nothing of what is there."""
    if fault is None:
        parse_docker_config(contents)
        return
    with pytest.raises(DockerConfigError, match=fault) as caught:
        parse_docker_config(contents)
    assert "hunter2" not in repr(caught.value)
    assert caught.value.__cause__ is None


@given(st.binary(max_size=60))
def test_any_contents_are_understood_or_refused(contents: bytes) -> None:
    """Nothing that may stand in a file ends in another error."""
    try:
        parse_docker_config(contents)
    except DockerConfigError:
        return
