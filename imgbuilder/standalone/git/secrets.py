"""The credentials of a clone: those of its settings, those in its address, or a secret that is told only once."""

from __future__ import annotations

from typing import Final

import anyio
import httpx

from imgbuilder.core.secrets import Secret
from imgbuilder.pb.contentservice import GitAuthMethod, GitConfig
from imgbuilder.standalone.git.addresses import Address, Login
from imgbuilder.standalone.git.errors import ContentError

LONGEST_SECRET: Final = 4096
DEFAULT_USER: Final = "git"
"""The user name where only a password is known. Servers that take tokens take any name."""


async def find_login(config: GitConfig | None, address: Address, *, limit: float) -> Login | None:
    """What the server of *address* is to be shown; None for nothing.

    :param limit: seconds that fetching a one-time secret may take.
    :raises ContentError: if the secret can't be had, or is nothing that can be shown.
    """
    login = address.login
    if config is not None and config.authentication == GitAuthMethod.BASIC_AUTH:
        login = Login(user=config.auth_user, password=Secret(config.auth_password))
    elif config is not None and config.authentication == GitAuthMethod.BASIC_AUTH_OTS:
        login = _login_of(config.auth_user, await fetch_secret(config.auth_ots, limit=limit))
    if login is not None and not f"{login.user}{login.password.reveal()}".isprintable():
        raise ContentError("the git credentials contain characters that can't be sent")
    return login


async def fetch_secret(address: str, *, limit: float) -> Secret:
    """The secret that *address* answers; asked once, as it answers once. The address is a secret itself.

    :raises ContentError: if there is none.
    """
    if not address.startswith(("http://", "https://")):
        raise ContentError("the git password can't be fetched: its address is not an http address")
    answer = b""
    try:
        with anyio.fail_after(limit):
            async with (
                httpx.AsyncClient(timeout=limit, follow_redirects=False) as client,
                client.stream("GET", address) as response,
            ):
                status = response.status_code
                async for chunk in response.aiter_bytes():
                    answer += chunk
                    if len(answer) > LONGEST_SECRET:
                        raise ContentError("the git password can't be fetched: the answer is too long")
    except TimeoutError:
        raise ContentError("the git password can't be fetched: no answer in time") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        # from None: the library's error tells the address
        raise ContentError(f"the git password can't be fetched: {type(error).__name__}") from None
    if status != httpx.codes.OK:
        raise ContentError(f"the git password can't be fetched: the answer is {status}")
    return Secret(answer.decode(errors="replace").strip("\r\n"))


def _login_of(user: str, secret: Secret) -> Login:
    """Where no user is named, the secret may name one, as ``user:password``."""
    if user:
        return Login(user=user, password=secret)
    named, colon, password = secret.reveal().partition(":")
    return (
        Login(user=named, password=Secret(password)) if colon else Login(user=DEFAULT_USER, password=secret)
    )
