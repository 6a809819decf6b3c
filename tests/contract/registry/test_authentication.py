"""Whose credentials reach a registry, how, and whose never do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import pytest

from imgbuilder.core.permissions import Permissions
from imgbuilder.registry.errors import (
    CredentialsUnavailableError,
    RegistryDeniedError,
    RegistryError,
    RegistryFaultError,
    RegistryRateLimitedError,
)
from tests.contract.registry.asking import EVERYTHING, additional, as_user, named, resolve
from tests.contract.registry.conftest import CountedMetrics, Looking
from tests.world.registries.httpd import Respond
from tests.world.registries.misbehaving import FakeRegistry

NOTHING = Permissions()


def pull_secret(folder: Path, **sections: Any) -> Path:
    """A config.json with *sections*."""
    file = folder / "config.json"
    file.write_text(json.dumps(sections), encoding="utf-8")
    return file


def token_request(registry: FakeRegistry) -> Any:
    """The only request for a token."""
    (request,) = [request for request in registry.requests if request.path == "/token"]
    return request


async def test_own_credentials_come_from_the_pull_secret(looking: Looking, tmp_path: Path) -> None:
    """A password goes to the token server as Basic, and to the registry never."""
    async with FakeRegistry(authentication="token", users={"u": "p:q"}) as registry:
        registry.put_image("a")
        file = pull_secret(tmp_path, auths={registry.host: {"auth": "dTpwOnE="}})
        async with looking(registry, pull_secret_file=file) as images:
            await resolve(images, registry)
            credentials = await images.credentials(registry.host)
    assert token_request(registry).authorization == "Basic dTpwOnE="
    assert [request.authorization for request in registry.requests if request.path != "/token"] == [
        "",
        "Bearer token-1",
    ]
    assert credentials is not None
    assert (credentials.username, credentials.password.reveal()) == ("u", "p:q")


async def test_an_identity_token_is_exchanged(looking: Looking, tmp_path: Path) -> None:
    """By POST, with the secret in the body and nowhere else."""
    async with FakeRegistry(authentication="token", identity_tokens=frozenset({"refresh"})) as registry:
        registry.put_image("a")
        file = pull_secret(tmp_path, auths={registry.host: {"identitytoken": "refresh"}})
        async with looking(registry, pull_secret_file=file) as images:
            await resolve(images, registry)
            await resolve(images, registry)
    assert registry.seen() == ["GET manifest", "POST token", "GET manifest", "GET manifest"]
    assert not token_request(registry).authorization
    assert not token_request(registry).query


async def test_a_registry_token_is_shown_as_it_is(looking: Looking, tmp_path: Path) -> None:
    """Without asking the token server."""
    async with FakeRegistry(authentication="token") as registry:
        registry.put_image("a")
        registry.tokens["given"] = "repository:a:pull"
        file = pull_secret(tmp_path, auths={registry.host: {"registrytoken": "given"}})
        async with looking(registry, pull_secret_file=file) as images:
            await resolve(images, registry)
    assert registry.seen() == ["GET manifest", "GET manifest"]


@pytest.mark.parametrize(
    ("permissions", "works"),
    [(EVERYTHING, True), (NOTHING, False), (Permissions(registries=frozenset({"other.test"})), False)],
)
async def test_own_credentials_are_used_where_permitted(
    looking: Looking,
    tmp_path: Path,
    permissions: Permissions,
    works: bool,
) -> None:
    """A request without permission is anonymous."""
    async with FakeRegistry(authentication="basic", users={"u": "p"}) as registry:
        registry.put_image("a")
        file = pull_secret(tmp_path, auths={registry.host: {"auth": "dTpw"}})
        async with looking(registry, pull_secret_file=file) as images:
            if works:
                await resolve(images, registry, "a", permissions)
            else:
                with pytest.raises(RegistryDeniedError):
                    await resolve(images, registry, "a", permissions)
    assert ("Basic dTpw" in [request.authorization for request in registry.requests]) is works


async def test_own_credentials_come_before_those_of_the_request(looking: Looking, tmp_path: Path) -> None:
    """Those of the request count where own ones are not permitted, or there are none."""
    async with FakeRegistry(authentication="basic", users={"own": "p", "theirs": "p"}) as registry:
        registry.put_image("a")
        file = pull_secret(tmp_path, auths={registry.host: {"username": "own", "password": "p"}})
        theirs = as_user(registry, "theirs", "p")
        async with looking(registry, pull_secret_file=file) as images:
            await resolve(images, registry, "a", theirs)
            await resolve(images, registry, "a", theirs.with_registry(registry.host))
        async with looking(registry) as images:
            await resolve(images, registry, "a", theirs.with_registry(registry.host))
    shown = [request.authorization for request in registry.requests]
    assert shown == [
        "",
        "Basic dGhlaXJzOnA=",
        "Basic b3duOnA=",
        "",
        "Basic dGhlaXJzOnA=",
    ]


async def test_a_pull_secret_that_changes_counts_at_once(looking: Looking, tmp_path: Path) -> None:
    """What is in the file now is shown to the registry."""
    async with FakeRegistry(authentication="basic", users={"u": "new"}) as registry:
        registry.put_image("a")
        file = pull_secret(tmp_path, auths={registry.host: {"username": "u", "password": "old"}})
        async with looking(registry, pull_secret_file=file) as images:
            with pytest.raises(RegistryDeniedError):
                await resolve(images, registry)
            assert images._pull_secret is not None
            changed = images._pull_secret.changed
            pull_secret(tmp_path, auths={registry.host: {"username": "u", "password": "new"}})
            with anyio.fail_after(20):
                await changed.wait()
            await resolve(images, registry)


async def test_anonymous_where_there_is_nothing_to_show(looking: Looking) -> None:
    """Also with additional credentials without a colon, which are no user's."""
    async with FakeRegistry(authentication="token", anonymous=True) as registry, looking(registry) as images:
        registry.put_image("a")
        await resolve(images, registry, "a", NOTHING)
        await resolve(images, registry, "a", additional({registry.host: "bm9jb2xvbg=="}))
        await resolve(images, registry, "a", additional({registry.host: ""}))
        assert registry.seen() == ["GET manifest", "GET token"] + ["GET manifest"] * 3


async def test_a_user_whose_name_has_colons(looking: Looking) -> None:
    """What a request brings along is split at the last colon, and sent as it was."""
    async with (
        FakeRegistry(authentication="basic", users={"a": "b:p"}) as registry,
        looking(registry) as images,
    ):
        registry.put_image("a")
        await resolve(images, registry, "a", additional({registry.host: "YTpiOnA="}))
        assert registry.requests[-1].authorization == "Basic YTpiOnA="


@pytest.mark.parametrize("authentication", ["basic", "token"])
async def test_wrong_credentials_are_denied(looking: Looking, authentication: Any) -> None:
    """After one attempt, and without trying anonymously."""
    registry = FakeRegistry(authentication=authentication, users={"u": "p"}, anonymous=True)
    async with registry, looking(registry) as images:
        registry.put_image("a")
        with pytest.raises(RegistryDeniedError) as caught:
            await resolve(images, registry, "a", as_user(registry, "u", "hunter2"), retry=True)
        assert len(registry.requests) == 2
        assert caught.value.registry == registry.host
        assert "hunter2" not in repr(caught.value)


async def test_nothing_to_show_is_denied_at_once(looking: Looking) -> None:
    """A registry that wants Basic is not asked again by somebody who has none, even if that is known."""
    async with FakeRegistry(authentication="basic") as registry, looking(registry) as images:
        for count in (1, 2):
            with pytest.raises(RegistryDeniedError):
                await resolve(images, registry, "a", NOTHING)
            assert len(registry.requests) == count


async def test_forbidden_is_denied(looking: Looking) -> None:
    """A 403 is no challenge."""
    async with FakeRegistry() as registry, looking(registry) as images:
        registry.fail_next(Respond(403))
        with pytest.raises(RegistryDeniedError):
            await resolve(images, registry)
        assert len(registry.requests) == 1


@pytest.mark.parametrize("header", [{}, {"WWW-Authenticate": "Negotiate"}, {"WWW-Authenticate": "Bearer"}])
async def test_a_challenge_that_can_not_be_met_is_denied(looking: Looking, header: dict[str, str]) -> None:
    """No scheme that we know, or nowhere to go."""
    async with FakeRegistry() as registry, looking(registry) as images:
        registry.fail_next(Respond(401, header))
        with pytest.raises(RegistryDeniedError):
            await resolve(images, registry)


async def test_a_token_that_is_not_taken_any_more_is_fetched_anew_once(looking: Looking) -> None:
    """And the look-up succeeds; if the new one is not taken either, it is denied."""
    async with FakeRegistry(authentication="token", anonymous=True) as registry, looking(registry) as images:
        registry.put_image("a")
        await resolve(images, registry)
        registry.requests.clear()
        registry.revoke_tokens()
        await resolve(images, registry)
        assert registry.seen() == ["GET manifest", "GET token", "GET manifest"]
        registry.requests.clear()
        challenge = {"WWW-Authenticate": f'Bearer realm="{registry.url}/token",service="fake"'}
        registry.fail_next(Respond(401, challenge), Respond(401, challenge))
        with pytest.raises(RegistryDeniedError):
            await resolve(images, registry)
        assert registry.seen() == ["GET manifest", "GET token", "GET manifest"]
        registry.requests.clear()
        await resolve(images, registry)
        assert registry.seen() == ["GET token", "GET manifest"]


async def test_a_token_is_used_until_shortly_before_it_expires(looking: Looking) -> None:
    """One that lives for a moment only is fetched for each request after that."""
    registry = FakeRegistry(authentication="token", anonymous=True, token_lifetime=0.01)
    async with registry, looking(registry) as images:
        registry.put_image("a")
        await resolve(images, registry)
        registry.requests.clear()
        await anyio.sleep(0.01)
        await resolve(images, registry)
        assert registry.seen() == ["GET token", "GET manifest"]


async def test_a_token_without_a_lifetime_is_kept_a_while(looking: Looking) -> None:
    """For the minute that the protocol grants it."""
    registry = FakeRegistry(authentication="token", anonymous=True, token_lifetime=None)
    async with registry, looking(registry) as images:
        registry.put_image("a")
        await resolve(images, registry)
        await resolve(images, registry)
        assert registry.seen() == ["GET manifest", "GET token", "GET manifest", "GET manifest"]


async def test_a_token_is_fetched_once_for_all_who_need_it(looking: Looking, metrics: CountedMetrics) -> None:
    """Twenty tags of one repository at a time."""
    async with FakeRegistry(authentication="token", anonymous=True, latency=0.01) as registry:
        for number in range(20):
            registry.put_image("a", str(number))
        async with looking(registry) as images:
            await resolve(images, registry, "a:0")
            registry.revoke_tokens()
            async with anyio.create_task_group() as group:
                for number in range(20):
                    group.start_soon(resolve, images, registry, f"a:{number}")
    # A late one may be told of the old token after the new one was fetched, but finds that.
    assert registry.seen().count("GET token") == 2
    assert metrics.tokens[True] >= 20


async def test_tokens_of_one_user_are_not_shown_for_another(looking: Looking) -> None:
    """Each gets one for its own credentials."""
    users = {"u": "p", "v": "q"}
    async with FakeRegistry(authentication="token", users=users) as registry, looking(registry) as images:
        registry.put_image("a")
        for user, password in users.items():
            await resolve(images, registry, "a", as_user(registry, user, password))
        with pytest.raises(RegistryDeniedError):
            await resolve(images, registry, "a", NOTHING)
        shown = [request.authorization for request in registry.requests]
        assert shown == ["", "Basic dTpw", "Bearer token-1", "Basic djpx", "Bearer token-2", ""]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Respond(401), RegistryDeniedError),
        (Respond(403), RegistryDeniedError),
        (Respond(429, {"Retry-After": "7"}), RegistryRateLimitedError),
        (Respond(500), RegistryFaultError),
        (Respond(404), RegistryFaultError),
        (Respond(200, {}, b"<html>"), RegistryFaultError),
        (Respond(200, {}, b'{"token": "a\\nb"}'), RegistryFaultError),
        (Respond(200, {}, b'{"token": "' + b"t" * 100_000 + b'"}'), RegistryFaultError),
        (Respond(200, {}, b'{"token": "' + b"t" * 1_048_576 + b'"}'), RegistryFaultError),
        (Respond(302, {"Location": "http://elsewhere.test/token"}), RegistryFaultError),
    ],
)
async def test_a_token_server_that_fails(looking: Looking, answer: Respond, kind: type[Exception]) -> None:
    """Each failure is typed, and names the registry."""
    async with FakeRegistry(authentication="token", anonymous=True) as registry, looking(registry) as images:
        registry.fail_next(answer, kind="token")
        with pytest.raises(kind, match=registry.host):
            await resolve(images, registry)
        assert registry.seen() == ["GET manifest", "GET token"]


@pytest.mark.parametrize("answer", [Respond(401), Respond(404)])
async def test_a_registry_that_moves_to_another_token_server(looking: Looking, answer: Respond) -> None:
    """One look-up fails with the former one, and the next finds the way."""
    async with FakeRegistry(authentication="token", anonymous=True) as registry, FakeRegistry() as former:
        registry.put_image("a")
        registry.put_image("b")
        registry.realm = f"{former.url}/token"
        former.tokens, former.anonymous = registry.tokens, True
        async with looking(registry, former) as images:
            await resolve(images, registry, "a")
            registry.realm = None
            former.fail_next(*[answer] * 9, kind="token")
            with pytest.raises(RegistryError):
                await resolve(images, registry, "b")
            await resolve(images, registry, "b")
        assert len(former.requests) == 2


async def test_a_refresh_token_that_is_not_valid_is_denied(looking: Looking, tmp_path: Path) -> None:
    """OAuth2 answers 400 then."""
    async with FakeRegistry(authentication="token") as registry:
        file = pull_secret(tmp_path, auths={registry.host: {"identitytoken": "stale"}})
        async with looking(registry, pull_secret_file=file) as images:
            registry.fail_next(Respond(400, {}, b'{"error": "invalid_grant"}'), kind="token")
            with pytest.raises(RegistryDeniedError):
                await resolve(images, registry)


async def test_credentials_are_not_sent_to_a_token_server_without_tls(looking: Looking) -> None:
    """Unless its host is listed as well: a registry must not choose where passwords can be read."""
    async with FakeRegistry(users={"u": "p"}) as server:
        realm = f"{server.url}/token"
        async with FakeRegistry(authentication="token", realm=realm) as registry:
            registry.put_image("a")
            async with looking(registry) as images:
                with pytest.raises(RegistryFaultError, match="does not use TLS"):
                    await resolve(images, registry, "a", as_user(registry, "u", "p"))
            assert not server.requests
            registry.tokens = server.tokens
            async with looking(registry, server) as images:
                await resolve(images, registry, "a", as_user(registry, "u", "p"))
            assert server.requests[0].authorization == "Basic dTpw"


async def test_userinfo_in_a_realm_is_nobody(looking: Looking) -> None:
    """It is not sent as credentials."""
    async with FakeRegistry(authentication="token", anonymous=True) as registry, looking(registry) as images:
        registry.put_image("a")
        registry.realm = f"http://evil:word@{registry.host}/token"
        await resolve(images, registry)
        assert not token_request(registry).authorization


async def test_a_header_is_not_smuggled_in(looking: Looking, tmp_path: Path) -> None:
    """Credentials that fit into no header are not sent, and not shown in the error."""
    async with FakeRegistry(authentication="token") as registry:
        file = pull_secret(tmp_path, auths={registry.host: {"registrytoken": "hunter2\r\nX-Evil: 1"}})
        async with looking(registry, pull_secret_file=file) as images:
            with pytest.raises(RegistryFaultError, match="can't be sent") as caught:
                await resolve(images, registry)
            assert "hunter2" not in str(caught.value)
        assert len(registry.requests) == 1


async def test_own_credentials_that_can_not_be_had_are_not_the_images_fault(
    looking: Looking,
    tmp_path: Path,
) -> None:
    """A public image is resolved all the same; for another the missing credentials are to blame."""
    async with FakeRegistry(authentication="token", anonymous=True) as registry:
        registry.put_image("a")
        file = pull_secret(tmp_path, credHelpers={registry.host: "no-such-helper"})
        async with looking(registry, pull_secret_file=file) as images:
            await resolve(images, registry)
            registry.anonymous = False
            registry.revoke_tokens()
            with pytest.raises(CredentialsUnavailableError, match="no-such-helper"):
                await resolve(images, registry)
            with pytest.raises(CredentialsUnavailableError):
                await images.credentials(registry.host)
            with pytest.raises(RegistryDeniedError):
                await images.resolve(named(registry, "a"), NOTHING, retry=False)
