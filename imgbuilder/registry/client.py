"""Authenticated requests to registries: one round trip where the way in is known.

Answers challenges and remembers them; leaves what an answer means to its callers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Final

from imgbuilder.core.challenges import Challenge, basic_authorization, choose, parse_challenges
from imgbuilder.core.secrets import Secret
from imgbuilder.registry.access import Access
from imgbuilder.registry.caches import BoundedCache
from imgbuilder.registry.errors import RegistryError
from imgbuilder.registry.http import LONGEST_ERROR, Answer, Http, Request
from imgbuilder.registry.retrying import Retrying
from imgbuilder.registry.tokens import Tokens

CHALLENGES: Final = 1024
"""How many registries' challenges are remembered."""

UNAUTHORIZED: Final = 401


class RegistryClient:
    """Speaks to registries in the name of whoever's credentials it is handed."""

    def __init__(self, *, http: Http, tokens: Tokens, retrying: Retrying) -> None:
        self._http = http
        self._tokens = tokens
        self._retrying = retrying
        self._challenges: BoundedCache[str, Challenge] = BoundedCache(CHALLENGES)

    async def request(
        self,
        access: Access,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        limit: int = LONGEST_ERROR,
    ) -> Answer:
        """Send a request, authenticated as the registry wants it. Any status is an answer.

        A 401 is returned only if there is nothing (else) to show. A token that was kept and is not taken any
        more is fetched anew once.

        :param path: counts from ``/v2/``.
        :param limit: how many bytes of body a successful answer may have.
        :raises RegistryError: if there is no answer, or no token.
        """
        request = Request(
            registry=access.registry,
            method=method,
            url=access.endpoint.url(path),
            headers=headers or {},
            content=content,
            limit=limit,
        )
        known = self._challenges.get(access.endpoint.base)
        fresh = known is not None and not self._tokens.keeps(access, known)
        shown = await self._authorization(access, known)
        answer = await self._send(access, request, shown)
        # What another host, to which the registry redirects, wants to see is none of our credentials.
        if answer.status != UNAUTHORIZED or answer.elsewhere:
            return answer
        if known is not None:
            self._tokens.refuse(access, known, shown)
        challenge = choose(parse_challenges(answer.headers.get_list("www-authenticate")))
        if challenge is None:
            return answer
        self._challenges.put(access.endpoint.base, challenge)
        if fresh and known is not None and challenge.answered_by == known.answered_by:
            return answer  # another token from there would be worth no more
        authorization = await self._authorization(access, challenge)
        if not authorization or authorization == shown:
            return answer
        answer = await self._send(access, request, authorization)
        if answer.status == UNAUTHORIZED:
            self._tokens.refuse(access, challenge, authorization)
        return answer

    async def authorization(self, access: Access) -> Secret:
        """What *access* shows where the way in is known, from an earlier request; empty if it is not.

        :raises RegistryError: if there is no token.
        """
        return await self._authorization(access, self._challenges.get(access.endpoint.base))

    async def _send(self, access: Access, request: Request, authorization: Secret) -> Answer:
        exchange = partial(self._http.exchange, replace(request, authorization=authorization))
        return await self._retrying.run(access.registry, exchange, retry=access.retry)

    async def _authorization(self, access: Access, challenge: Challenge | None) -> Secret:
        """The Authorization header that answers *challenge*; empty if there is nothing to show."""
        if challenge is None:
            return Secret("")
        if challenge.scheme == "basic":
            return basic_authorization(access.credentials)
        try:
            return await self._tokens.authorization(access, challenge)
        except RegistryError:
            # The registry may have moved to another token server: next time it is asked which.
            self._challenges.forget(access.endpoint.base)
            raise
