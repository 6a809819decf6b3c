"""What becomes of a look-up when a registry misbehaves."""

from __future__ import annotations

import json
import time
from contextlib import AbstractContextManager, nullcontext
from email.utils import formatdate
from pathlib import Path

import anyio
import pytest

from imgbuilder.core.manifests import OCI_INDEX
from imgbuilder.core.references import parse_reference
from imgbuilder.registry.errors import (
    ManifestUnknownError,
    RegistryDeniedError,
    RegistryError,
    RegistryFaultError,
    RegistryRateLimitedError,
    RegistryUnreachableError,
)
from tests.contract.registry.asking import EVERYTHING, as_user, named, resolve
from tests.contract.registry.conftest import CountedMetrics, Looking
from tests.world.registries import contents
from tests.world.registries.contents import Manifest
from tests.world.registries.httpd import Respond
from tests.world.registries.misbehaving import (
    Endless,
    FakeRegistry,
    Fault,
    Hang,
    RedirectTo,
    Reset,
    Truncate,
    WrongBody,
)

HANGING = (Hang(), Endless(trickle=True))


def time_for(fault: Fault) -> float:
    """A time limit to wait for where a fault makes it count, and one that no slow machine reaches elsewhere."""
    return 0.5 if fault in HANGING else 15


@pytest.mark.parametrize(
    ("fault", "kind", "text"),
    [
        (Respond(404), ManifestUnknownError, "manifest unknown"),
        (Respond(429), RegistryRateLimitedError, "too many requests"),
        (Respond(500), RegistryFaultError, "answers with status 500"),
        (Respond(501), RegistryFaultError, "answers with status 501"),
        (
            Respond(400, {}, b'{"errors":[{"code":"NAME_INVALID"}]}'),
            RegistryFaultError,
            r"status 400 \(NAME_INVALID\)",
        ),
        (Respond(418, {}, b'{"errors":[{"code":"hunter2"}]}'), RegistryFaultError, "status 418$"),
        (Respond(204), RegistryFaultError, "status 204"),
        (Respond(500, {}, b"x" * 1_000_000), RegistryFaultError, "status 500"),
        (Respond(307), RegistryFaultError, "status 307"),
        (Respond(200, {}, b"<html>"), RegistryFaultError, "not JSON"),
        (Respond(200, {}, b'{"schemaVersion": 1, "fsLayers": []}'), RegistryFaultError, "schema 1"),
        (Respond(200, {"Docker-Content-Digest": "odd"}, b"{}"), RegistryFaultError, "do not match"),
        (Respond(200, {"Content-Encoding": "gzip"}, b"x"), RegistryFaultError, "encoded"),
        (Respond(200, {}, b" " * 5_000_000), RegistryFaultError, "longer than 4194304 bytes"),
        (Respond(200, {"Content-Length": "12x"}, b"{}"), RegistryUnreachableError, "connection broke"),
        (Respond(200, {"X": "y" * 200_000}), RegistryUnreachableError, "connection broke"),
        (Hang(), RegistryUnreachableError, "no answer within 0.5 s"),
        (Endless(trickle=True), RegistryUnreachableError, "no answer within 0.5 s"),
        (Endless(), RegistryFaultError, "longer than"),
        (Reset(), RegistryUnreachableError, "connection broke"),
        (Truncate(), RegistryUnreachableError, "connection broke"),
        (WrongBody(), RegistryFaultError, "do not match their digest"),
    ],
)
async def test_a_fault_is_typed(
    looking: Looking,
    fault: Fault,
    kind: type[RegistryError],
    text: str,
) -> None:
    """From one request, with the registry named; the next look-up is none the worse for it."""
    async with FakeRegistry() as registry, looking(registry, timeout=time_for(fault)) as images:
        registry.put_image("a")
        registry.fail_next(fault)
        with pytest.raises(kind, match=text) as caught:
            await resolve(images, registry)
        assert type(caught.value) is kind
        assert caught.value.registry == registry.host
        assert str(caught.value).startswith(f"registry {registry.host}: ")
        assert len(registry.requests) == 1
        await resolve(images, registry)


@pytest.mark.parametrize("fault", [Hang(), Reset(), Respond(500), Respond(429), Respond(401)])
async def test_a_failing_check_is_no_answer(looking: Looking, fault: Fault) -> None:
    """Only 404 says that an image does not exist."""
    async with FakeRegistry() as registry, looking(registry, timeout=time_for(fault)) as images:
        registry.put_image("a")
        registry.fail_next(fault)
        with pytest.raises(RegistryError):
            await images.exists(named(registry, "a"), EVERYTHING, retry=False)


async def test_other_contents_under_a_digest(looking: Looking) -> None:
    """They are refused although the registry calls them by their own digest."""
    async with FakeRegistry() as registry, looking(registry) as images:
        asked = registry.put_image("a")
        other = contents.image("evil")
        registry.fail_next(
            Respond(
                200,
                {"Docker-Content-Digest": other.digest, "Content-Type": other.media_type},
                other.body,
            ),
        )
        with pytest.raises(RegistryFaultError, match="do not match their digest"):
            await resolve(images, registry, f"a@{asked}")


async def test_an_index_that_names_no_digest(looking: Looking) -> None:
    """What would break out of a reference does not get into one."""
    body = (
        b'{"manifests": [{"platform": {"os": "linux", "architecture": "amd64"}, '
        b'"digest": "sha256:x@evil.test/y"}]}'
    )
    async with FakeRegistry() as registry, looking(registry) as images:
        registry.put("a", "latest", Manifest(body=body, media_type=OCI_INDEX))
        with pytest.raises(RegistryFaultError, match="without a proper digest"):
            await resolve(images, registry)


async def test_nobody_listens(looking: Looking) -> None:
    """The error names the registry."""
    async with looking(insecure=frozenset({"127.0.0.1:1"})) as images:
        with pytest.raises(RegistryUnreachableError, match=r"registry 127\.0\.0\.1:1: no connection"):
            await images.resolve(parse_reference("127.0.0.1:1/a"), EVERYTHING, retry=False)


@pytest.mark.parametrize("name", ["a.test:99999", "a.test:0", "x" * 70 + ".test", "[::ffff:1:2:3:4:5:6:7:8]"])
async def test_a_registry_whose_name_is_no_hosts(looking: Looking, name: str) -> None:
    """References may be odd; nothing is sent, and nothing else breaks."""
    async with looking() as images:
        with pytest.raises(RegistryFaultError, match=r"its name is no host's|can't be sent"):
            await images.resolve(parse_reference(f"{name}/a"), EVERYTHING, retry=False)


# --- retries ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        Respond(500),
        Respond(503),
        Respond(599),
        Respond(429),
        Respond(429, {"Retry-After": "0"}),
        Respond(429, {"Retry-After": formatdate(0, usegmt=True)}),
        Respond(429, {"Retry-After": "soon"}),
        Reset(),
        Truncate(),
    ],
)
async def test_what_may_pass_is_tried_three_times_more(looking: Looking, fault: Fault) -> None:
    """The fourth attempt succeeds, or its failure is the answer. Without retries the first one's is."""
    async with FakeRegistry() as registry:
        registry.put_image("a")
        for failures, retry, attempts in [(3, True, 4), (4, True, 4), (1, False, 1)]:
            registry.fail_next(*[fault] * failures)
            # Over connections of its own: a reset of a kept one is no attempt.
            async with looking(registry) as images:
                outcome: AbstractContextManager[object] = nullcontext()
                if failures == attempts:
                    outcome = pytest.raises(RegistryError)
                with outcome:
                    await resolve(images, registry, retry=retry)
            assert len(registry.requests) == attempts
            registry.requests.clear()


async def test_no_answer_in_time_may_pass_as_well(looking: Looking) -> None:
    """The look-up goes on with the time that is left."""
    async with FakeRegistry() as registry, looking(registry, timeout=3) as images:
        registry.put_image("a")
        registry.fail_next(Hang())
        await resolve(images, registry, retry=True)
        assert len(registry.requests) == 2


@pytest.mark.parametrize("fault", [Respond(501), Respond(404), Respond(403), Respond(400), WrongBody()])
async def test_what_will_not_pass_is_not_tried_again(looking: Looking, fault: Fault) -> None:
    """Whatever retries are wanted."""
    async with FakeRegistry() as registry, looking(registry) as images:
        registry.put_image("a")
        registry.fail_next(fault)
        with pytest.raises(RegistryError):
            await resolve(images, registry, retry=True)
        assert len(registry.requests) == 1


async def test_a_token_is_retried_as_well(looking: Looking) -> None:
    """Every request of the look-up has its attempts."""
    async with FakeRegistry(authentication="token", anonymous=True) as registry, looking(registry) as images:
        registry.put_image("a")
        registry.fail_next(Respond(503), Respond(503), kind="token")
        registry.fail_next(Respond(503))
        assert await images.exists(named(registry, "a"), EVERYTHING, retry=True)
        assert registry.seen() == ["HEAD manifest"] * 2 + ["GET token"] * 3 + ["HEAD manifest"]


async def test_a_registry_is_given_the_time_it_asks_for(looking: Looking) -> None:
    """In seconds, or as a date by the wall clock."""
    wall_time = 1_000_000.0
    async with (
        FakeRegistry() as registry,
        looking(registry, lookup_timeout=5, wall_clock=lambda: wall_time) as images,
    ):
        registry.put_image("a")
        registry.fail_next(Respond(429, {"Retry-After": formatdate(wall_time + 1, usegmt=True)}))
        started = time.monotonic()
        await resolve(images, registry, retry=True)
        assert time.monotonic() - started >= 1


async def test_a_registry_that_asks_for_more_time_than_there_is(looking: Looking) -> None:
    """The look-up ends at once, and says how long it was to wait."""
    async with FakeRegistry() as registry, looking(registry) as images:
        registry.put_image("a")
        registry.fail_next(Respond(429, {"Retry-After": "3600"}))
        with pytest.raises(RegistryRateLimitedError) as caught:
            await resolve(images, registry, retry=True)
        assert caught.value.retry_after == 3600
        assert len(registry.requests) == 1


# --- time and size ----------------------------------------------------------------------------------------


async def test_a_lookup_as_a_whole_has_a_time_limit(looking: Looking) -> None:
    """However its requests add up."""
    registry = FakeRegistry(authentication="token", anonymous=True, latency=0.6)
    async with registry, looking(registry, timeout=5, lookup_timeout=1.6) as images:
        registry.put_image("a")
        with pytest.raises(RegistryUnreachableError, match=r"no answer within 1\.6 s"):
            await resolve(images, registry)
        assert registry.seen()[:2] == ["GET manifest", "GET token"]


async def test_a_registry_that_hangs_does_not_hold_others_up(looking: Looking) -> None:
    """Another one is asked and answers meanwhile, also with all connections of the first in use."""
    async with FakeRegistry() as stuck, FakeRegistry() as registry:
        registry.put_image("a")
        stuck.fail_next(*[Hang()] * 20)
        async with looking(stuck, registry, timeout=30) as images, anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(resolve, images, stuck, f"a:{number}")
            await stuck.requested(8)
            with anyio.fail_after(20):
                await resolve(images, registry)
            assert len(stuck.requests) == 8
            group.cancel_scope.cancel()


async def test_an_endless_answer_is_cut_off(looking: Looking) -> None:
    """Its connection is closed, so that no more of it arrives."""
    async with FakeRegistry() as registry, looking(registry) as images:
        registry.fail_next(Endless())
        with pytest.raises(RegistryFaultError):
            await resolve(images, registry)
        with anyio.fail_after(20):
            await registry.abandoned()


async def test_metrics_of_what_failed(looking: Looking, metrics: CountedMetrics) -> None:
    """By status, or by what there was instead of one."""
    async with FakeRegistry() as registry, looking(registry, timeout=1) as images:
        registry.fail_next(Reset(), Respond(500), Hang(), Truncate())
        for _ in range(4):
            with pytest.raises(RegistryError):
                await resolve(images, registry)
    assert metrics.requests == {
        (registry.host, "GET", status): count for status, count in [("500", 1), ("error", 2), ("timeout", 1)]
    }


# --- redirects --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_carries_no_credentials_to_another_host(looking: Looking, status: int) -> None:
    """It is followed all the same."""
    async with (
        FakeRegistry(authentication="basic", users={"u": "p"}) as registry,
        FakeRegistry() as other,
        looking(registry, other) as images,
    ):
        registry.put_image("a")
        digest = other.put_image("a", "1")
        registry.put_image("a", "1", text="not this one")
        await resolve(images, registry, "a", as_user(registry, "u", "p"))
        registry.fail_next(RedirectTo(other.url + "{path}", status))
        permissions = as_user(registry, "u", "p")
        assert (await resolve(images, registry, "a:1", permissions)).endswith(digest)
        assert [request.authorization for request in other.requests] == [""]
        assert "cookie" not in other.requests[0].headers


async def test_a_redirect_within_a_host_keeps_them(looking: Looking) -> None:
    """It is the same registry."""
    async with (
        FakeRegistry(authentication="basic", users={"u": "p"}) as registry,
        looking(registry) as images,
    ):
        registry.put_image("a")
        registry.put_image("b")
        await resolve(images, registry, "a", as_user(registry, "u", "p"))
        registry.fail_next(RedirectTo("/v2/b/manifests/latest"))
        await resolve(images, registry, "a", as_user(registry, "u", "p"))
        assert [request.path for request in registry.requests[-2:]] == [
            "/v2/a/manifests/latest",
            "/v2/b/manifests/latest",
        ]
        assert registry.requests[-1].authorization == "Basic dTpw"


async def test_what_comes_back_from_another_host_has_lost_them(looking: Looking) -> None:
    """A host in between does not choose what is asked of a registry in our name."""
    async with (
        FakeRegistry(authentication="basic", users={"u": "p"}) as registry,
        FakeRegistry() as other,
        looking(registry, other) as images,
    ):
        registry.put_image("a")
        registry.put_image("secret")
        await resolve(images, registry, "a", as_user(registry, "u", "p"))
        registry.fail_next(RedirectTo(other.url + "{path}"))
        other.fail_next(RedirectTo(registry.url + "/v2/secret/manifests/latest"))
        with pytest.raises(RegistryDeniedError):
            await resolve(images, registry, "a", as_user(registry, "u", "p"))
        assert registry.requests[-1].authorization == ""


async def test_a_challenge_from_another_host_is_not_answered(looking: Looking) -> None:
    """The credentials are for the registry that was asked, not for where it redirects."""
    async with (
        FakeRegistry() as registry,
        FakeRegistry(authentication="token", users={"u": "p"}) as other,
        looking(registry, other) as images,
    ):
        registry.fail_next(RedirectTo(other.url + "{path}"))
        with pytest.raises(RegistryDeniedError):
            await resolve(images, registry, "a", as_user(registry, "u", "p"))
        assert other.seen() == ["GET manifest"]


async def test_a_redirect_to_plain_http_is_not_followed(looking: Looking) -> None:
    """Unless that host is listed."""
    async with FakeRegistry() as registry, FakeRegistry() as other, looking(registry) as images:
        registry.fail_next(RedirectTo(other.url + "{path}"))
        with pytest.raises(RegistryFaultError, match="redirects to where no request may go"):
            await resolve(images, registry)
        assert not other.requests


@pytest.mark.parametrize("location", ["ftp://x.test/", "javascript:1", "http://[", "//", "a:////["])
async def test_a_redirect_to_nowhere(looking: Looking, location: str) -> None:
    """Whatever stands in the header."""
    async with FakeRegistry() as registry, looking(registry) as images:
        registry.fail_next(Respond(307, {"Location": location}))
        with pytest.raises(RegistryError):
            await resolve(images, registry)


async def test_redirects_end(looking: Looking) -> None:
    """Five are followed, and a loop is left."""
    async with FakeRegistry() as registry, looking(registry) as images:
        registry.put_image("a")
        registry.fail_next(*[RedirectTo("{path}")] * 5)
        await resolve(images, registry)
        assert len(registry.requests) == 6
        registry.requests.clear()
        registry.fail_next(*[RedirectTo("{path}")] * 7)
        with pytest.raises(RegistryFaultError, match="redirects more than 5 times"):
            await resolve(images, registry)
        assert len(registry.requests) == 6


async def test_a_token_request_by_post_is_not_redirected(looking: Looking, tmp_path: Path) -> None:
    """Its body is the credential."""
    async with FakeRegistry(authentication="token") as registry:
        file = tmp_path / "config.json"
        file.write_text(json.dumps({"auths": {registry.host: {"identitytoken": "refresh"}}}))
        registry.fail_next(RedirectTo("/token"), kind="token")
        async with looking(registry, pull_secret_file=file) as images:
            with pytest.raises(RegistryFaultError, match="token server answers with status 307"):
                await resolve(images, registry)
        assert registry.seen() == ["GET manifest", "POST token"]


async def test_cookies_are_forgotten(looking: Looking) -> None:
    """They would join requests that are made with different credentials."""
    async with FakeRegistry() as registry, looking(registry) as images:
        registry.put_image("a")
        registry.fail_next(Respond(500, {"Set-Cookie": "session=1; Path=/"}))
        with pytest.raises(RegistryFaultError):
            await resolve(images, registry)
        await resolve(images, registry)
        assert "cookie" not in registry.requests[-1].headers
