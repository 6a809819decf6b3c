"""What registries, token servers and credential helpers say, and the pull secret."""

from __future__ import annotations

import base64
from contextlib import suppress
from typing import Any, Final

import httpx
from hypothesis import example, given
from hypothesis import strategies as st

from imgbuilder.core.backoff import Backoff
from imgbuilder.core.challenges import (
    InvalidChallengeError,
    choose,
    parse_challenges,
    read_token,
    token_request,
)
from imgbuilder.core.contents import read_manifest
from imgbuilder.core.manifests import (
    OCI_INDEX,
    OCI_MANIFEST,
    DigestMismatchError,
    InvalidManifestError,
    InvalidPlatformError,
    NoManifestForPlatformError,
    parse_platform,
    resolved_digest,
    sha256_digest,
    verify_digest,
)
from imgbuilder.core.permissions import Credentials
from imgbuilder.core.references import InvalidReferenceError, is_digest, parse_reference
from imgbuilder.core.secrets import Secret
from imgbuilder.registry.answers import refusal
from imgbuilder.registry.dockerconfig import DockerConfigError, Helper, parse_docker_config
from imgbuilder.registry.endpoints import Endpoints
from imgbuilder.registry.errors import CredentialsUnavailableError, RegistryError, RegistryFaultError
from imgbuilder.registry.helpers import _read
from imgbuilder.registry.http import Answer, origin_of, parse_address
from imgbuilder.registry.retrying import Retrying
from tests.fuzz.inputs import DEEP, bounded, documents, fuzz, inputs, refusing, texts

DIGEST: Final = sha256_digest(b"{}")
PAIR: Final = base64.b64encode(b"user:password").decode()

MANIFEST: Final = {
    "schemaVersion": 2,
    "mediaType": OCI_MANIFEST,
    "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": DIGEST, "size": 2},
    "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": DIGEST, "size": 2}],
}
INDEX: Final = {
    "schemaVersion": 2,
    "mediaType": OCI_INDEX,
    "manifests": [
        {
            "mediaType": OCI_MANIFEST,
            "digest": DIGEST,
            "size": 2,
            "platform": {"os": "linux", "architecture": "arm", "variant": variant},
        }
        for variant in ("v6", "v7")
    ],
}


@fuzz
@given(
    texts(
        "ubuntu",
        f"registry.test:5000/a/b__c-d.e:tag@{DIGEST}",
        "https://user:password@host/a",
        pieces=("a", "A", "-", ".", "/", ":", "@", "_", "[", "]", "sha256:", "0"),
    )
)
def test_references(text: str) -> None:
    """A reference has a normal form in which it stays; anything else is InvalidReferenceError."""
    with bounded(), suppress(InvalidReferenceError):
        reference = parse_reference(text)
        assert parse_reference(str(reference)) == reference


CHALLENGE: Final = (
    'Bearer realm="https://auth.test/token?a=b",service="registry.test",scope="repository:a:pull"'
)
CHALLENGES: Final = texts(
    CHALLENGE,
    f'Basic realm="a\\"b", {CHALLENGE}',
    "Negotiate dG9rZW4=, Bearer realm=http://auth.test",
    pieces=("=", ",", '"', "\\", " ", "\t", "a", "Bearer ", "://", "[", "@", "%", "&"),
)


@fuzz
@given(st.lists(CHALLENGES, max_size=2), st.booleans())
def test_challenges(headers: list[str], identity: bool) -> None:
    """Headers are read as far as they can be; what can't be answered is InvalidChallengeError."""
    credentials = Credentials(username="user", password=Secret("password"))
    if identity:
        credentials = Credentials(identity_token=Secret("token"))
    endpoints = Endpoints(insecure=frozenset({"auth.test"}), mirrors={})
    with bounded():
        challenge = choose(parse_challenges(headers))
        if challenge is None or challenge.scheme != "bearer":
            return
        with suppress(InvalidChallengeError):
            request = token_request(challenge, scope="repository:a:pull", credentials=credentials)
            endpoints.allows(request.url, "https://registry.test")
            with suppress(RegistryFaultError):
                assert not parse_address("registry.test", request.url).userinfo


@fuzz
@given(documents({"token": "abc", "expires_in": 300}, {"access_token": "abc", "expires_in": 1.5}))
def test_token_answers(body: bytes) -> None:
    """A token that fits into a header, with a lifetime, or InvalidChallengeError."""
    with bounded(), suppress(InvalidChallengeError):
        token = read_token(body)
        assert token.value.reveal().isprintable()
        assert 0 < token.lifetime <= 24 * 3600


@fuzz
@given(
    documents(MANIFEST, INDEX),
    st.sampled_from([OCI_INDEX, OCI_MANIFEST, "", "text/html; charset=x"]),
    st.sampled_from(["linux/amd64", "linux/arm/v7"]),
)
@example(b'{"layers":[],"mediaType":%b}' % DEEP, "", "linux/amd64")
@example(
    b'{"manifests":[{"platform":{"os":"linux","architecture":"arm","variant":%b}}]}' % DEEP,
    "",
    "linux/arm/v7",
)
def test_manifests(body: bytes, media_type: str, platform: str) -> None:
    """A digest, or one of the two errors of manifests."""
    with bounded(), suppress(InvalidManifestError, NoManifestForPlatformError):
        assert is_digest(resolved_digest(body, media_type, parse_platform(platform)))


@fuzz
@given(documents(MANIFEST), st.sampled_from([OCI_MANIFEST, "", "text/html; charset=x"]))
@example(b'{"config":{"mediaType":%b},"layers":[]}' % DEEP, "")
def test_manifests_that_are_copied(body: bytes, media_type: str) -> None:
    """All blobs have a digest and a size, or it is InvalidManifestError."""
    with bounded(), suppress(InvalidManifestError):
        assert all(
            is_digest(blob.digest) and blob.size >= 0 for blob in read_manifest(body, media_type).blobs
        )


@fuzz
@given(texts(DIGEST, "sha512:" + "0" * 128, pieces=("sha", ":", "0", "é")))
def test_digests_in_headers(text: str) -> None:
    """They fit, or it is DigestMismatchError."""
    with bounded(), suppress(DigestMismatchError):
        verify_digest(b"{}", text)


@fuzz
@given(
    st.sampled_from([307, 400, 401, 403, 404, 429, 500, 503]),
    documents({"errors": [{"code": "NAME_INVALID", "message": "no"}]}),
    texts("Wed, 21 Oct 2026 07:28:00 GMT", "120", pieces=("9", ":", " ", "-")),
)
def test_refusals(status: int, body: bytes, retry_after: str) -> None:
    """Each has its error, which repeats nothing of the body but a code; a time to wait is a number."""
    retrying = Retrying(
        backoff=Backoff(first=1, factor=2, limit=8), wall_clock=lambda: 0.0, jitter=lambda: 0.0
    )
    headers = httpx.Headers([(b"Retry-After", retry_after.encode())])
    with bounded():
        error = refusal("registry.test", Answer(status=status, headers=headers, body=body), retrying)
    assert isinstance(error, RegistryError)
    assert len(str(error)) < 200
    assert getattr(error, "retry_after", None) is None or error.retry_after >= 0  # type: ignore[attr-defined]  # one has it


@fuzz
@given(
    texts(
        "https://cdn.test:443/v2/a?signature=b#c",
        "/v2/b/manifests/latest",
        "//user:password@other.test/",
        "file:///etc/passwd",
        pieces=("/", ":", "@", "[", "]", "%", "?", "#", "\\", " ", "é", "xn--", "0"),
    )
)
@example("a:////[")
def test_redirects(location: str) -> None:
    """An address without userinfo, of which it can be said whether to go there, or RegistryFaultError."""
    endpoints = Endpoints(insecure=frozenset(), mirrors={})
    registry = parse_address("registry.test", "https://registry.test/v2/a/manifests/latest")
    with bounded(), suppress(RegistryFaultError):
        target = parse_address("registry.test", location, seen_from=registry)
        assert not target.userinfo
        origin_of(target)
        if endpoints.allows(str(target), str(registry)):
            assert target.scheme == "https"


CONFIG: Final[dict[str, Any]] = {
    "auths": {
        "https://index.docker.io/v1/": {"auth": PAIR},
        "registry.test:5000": {"identitytoken": "token"},
    },
    "credHelpers": {"other.test": "ecr-login"},
    "credsStore": "secretservice",
}


@fuzz
@given(documents(CONFIG))
def test_docker_configs(contents: bytes) -> None:
    """Credentials and helpers can be asked for, or it is DockerConfigError."""
    with bounded(), suppress(DockerConfigError):
        config = parse_docker_config(contents)
        for registry in ("docker.io", "registry.test:5000", "other.test", ""):
            config.credentials(registry)
            config.helper(registry)


@fuzz
@given(documents({"Username": "user", "Secret": "password", "ServerURL": "registry.test"}))
def test_output_of_credential_helpers(output: bytes) -> None:
    """Credentials or none, or CredentialsUnavailableError, which repeats nothing of it."""
    helper = Helper(name="test", server="registry.test")
    with bounded(), refusing(CredentialsUnavailableError) as said:
        found = _read("registry.test", helper, output)
        assert found is None or not found.anonymous
    assert set(said) <= {"registry registry.test: credential helper test does not answer as helpers do"}


@fuzz
@given(inputs(b"linux/amd64", b"linux/arm/v7", pieces=(b"/", b"v", b"\xc2\xb2")))
def test_platforms(data: bytes) -> None:
    """Operating system and architecture, or InvalidPlatformError."""
    with bounded(), suppress(InvalidPlatformError):
        assert parse_platform(data.decode(errors="replace")).architecture
