"""Tokens: fetched from token servers once, and kept until shortly before they expire."""

from __future__ import annotations

from functools import partial
from typing import Final

import anyio

from imgbuilder.core.challenges import (
    Challenge,
    InvalidChallengeError,
    Token,
    bearer_authorization,
    read_token,
    token_request,
)
from imgbuilder.core.secrets import Secret
from imgbuilder.registry.access import Access
from imgbuilder.registry.caches import BoundedCache
from imgbuilder.registry.endpoints import Endpoints
from imgbuilder.registry.errors import (
    RegistryDeniedError,
    RegistryFaultError,
    RegistryRateLimitedError,
    RegistryUnreachableError,
)
from imgbuilder.registry.http import Answer, Http, RegistryMetrics, Request
from imgbuilder.registry.retrying import Retrying
from imgbuilder.registry.singleflight import SingleFlight
from imgbuilder.runtime.tasks import Tasks

CAPACITY: Final = 8 * 1024 * 1024
"""Bytes of tokens that are kept."""

ENTRY: Final = 1024
"""Bytes that an entry is taken to cost beside its token."""

LONGEST_ANSWER: Final = 256 * 1024
MARGIN: Final = 15.0
"""Seconds before its end from which a token is not used any more: a request may be that long under way."""

Key = tuple[str, str, str, str, str, bytes]


class Tokens:
    """The tokens of all registries."""

    def __init__(
        self,
        *,
        http: Http,
        endpoints: Endpoints,
        retrying: Retrying,
        metrics: RegistryMetrics,
        tasks: Tasks,
        time_limit: float,
    ) -> None:
        """:param time_limit: seconds that getting a token may take, with all requests and pauses."""
        self._http = http
        self._endpoints = endpoints
        self._retrying = retrying
        self._metrics = metrics
        self._time_limit = time_limit
        self._kept: BoundedCache[Key, Token] = BoundedCache(CAPACITY)
        self._flights: SingleFlight[tuple[Key, bool], Token] = SingleFlight(tasks, name="fetch a token")

    async def authorization(self, access: Access, challenge: Challenge) -> Secret:
        """The Authorization header that answers a Bearer *challenge*.

        :raises RegistryError: if the token server gives no token.
        """
        if access.credentials is not None and access.credentials.registry_token:
            return bearer_authorization(access.credentials.registry_token)
        key = _key(access, challenge)
        token = self._kept.get(key, now=anyio.current_time())
        self._metrics.token_cache(token is not None)
        if token is None:
            fetch = partial(self._fetch_in_time, key, access, challenge)
            token = await self._flights.run((key, access.retry), fetch)
        return bearer_authorization(token.value)

    def keeps(self, access: Access, challenge: Challenge) -> bool:
        """Whether there is a token from before, which the registry may take no more."""
        return self._kept.get(_key(access, challenge), now=anyio.current_time()) is not None

    def refuse(self, access: Access, challenge: Challenge, authorization: Secret) -> None:
        """Keep the token of *authorization* no longer: the registry does not take it."""
        key = _key(access, challenge)
        token = self._kept.get(key, now=anyio.current_time())
        if token is not None and bearer_authorization(token.value) == authorization:
            self._kept.forget(key)

    async def _fetch_in_time(self, key: Key, access: Access, challenge: Challenge) -> Token:
        with anyio.move_on_after(self._time_limit):
            token = await self._fetch(access, challenge)
            until = anyio.current_time() + token.lifetime - min(MARGIN, token.lifetime / 5)
            self._kept.put(key, token, until=until, weight=ENTRY + len(token.value.reveal()))
            return token
        raise RegistryUnreachableError(access.registry, f"no token within {self._time_limit:g} s")

    async def _fetch(self, access: Access, challenge: Challenge) -> Token:
        registry = access.registry
        try:
            wanted = token_request(challenge, scope=access.scope, credentials=access.credentials)
        except InvalidChallengeError as error:
            raise RegistryFaultError(registry, str(error)) from error
        if not self._endpoints.allows(wanted.url, access.endpoint.base):
            # Password or not: whoever reads along could use the token.
            raise RegistryFaultError(registry, "its token server does not use TLS")
        form = wanted.form.reveal()
        request = Request(
            registry=registry,
            method=wanted.method,
            url=wanted.url,
            headers={"Content-Type": "application/x-www-form-urlencoded"} if form else {},
            authorization=wanted.authorization,
            content=form.encode() if form else None,
            limit=LONGEST_ANSWER,
        )
        exchange = partial(self._http.exchange, request)
        answer = await self._retrying.run(registry, exchange, retry=access.retry)
        self._check(registry, wanted.method, answer)
        try:
            return read_token(answer.body)
        except InvalidChallengeError as error:
            raise RegistryFaultError(registry, str(error)) from error

    def _check(self, registry: str, method: str, answer: Answer) -> None:
        # OAuth2 says 400 about a refresh token that is not valid (any more).
        if answer.status in {401, 403} or (answer.status == 400 and method == "POST"):
            raise RegistryDeniedError(registry, "its token server denies access")
        if answer.status == 429:
            raise RegistryRateLimitedError(
                registry,
                "too many requests to its token server",
                retry_after=self._retrying.retry_after(answer),
            )
        if answer.status != 200:
            raise RegistryFaultError(registry, f"its token server answers with status {answer.status}")


def _key(access: Access, challenge: Challenge) -> Key:
    return (
        access.endpoint.base,
        *challenge.answered_by,
        access.scope,
        access.identity,
    )
