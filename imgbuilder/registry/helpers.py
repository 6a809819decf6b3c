"""Docker's credential helpers: programs ``docker-credential-<name>`` that are asked for credentials.

Bounds each in time and output. What they print never gets into logs or errors.
"""

from __future__ import annotations

import os
import signal
import subprocess
from typing import Final

import anyio
import orjson
from anyio.abc import Process

from imgbuilder.core.permissions import Credentials, basic_credentials
from imgbuilder.core.secrets import Secret
from imgbuilder.registry.dockerconfig import Helper
from imgbuilder.registry.errors import CredentialsUnavailableError

TIME_LIMIT: Final = 10.0
LONGEST_OUTPUT: Final = 256 * 1024
USER_OF_IDENTITY_TOKENS: Final = "<token>"
"""The user name that says that the secret is an identity token."""

NOT_FOUND: Final = b"credentials not found"
"""How a helper that has none for a server says so, with an exit status that says nothing."""


async def ask_helper(registry: str, helper: Helper, *, time_limit: float = TIME_LIMIT) -> Credentials | None:
    """The credentials that *helper* has; None if it has none.

    Cancelling it ends the program, and what that started.

    :raises CredentialsUnavailableError: if the program is missing, fails, or does not answer in time.
    """
    with anyio.move_on_after(time_limit):
        try:
            status, output = await _run(helper)
        except OSError as error:
            fault = f"credential helper {helper.name} can't be run: {error.strerror}"
            raise CredentialsUnavailableError(registry, fault) from error
        if status == 0:
            return _read(registry, helper, output)
        if NOT_FOUND in output:
            return None
        raise CredentialsUnavailableError(registry, f"credential helper {helper.name} fails")
    raise CredentialsUnavailableError(registry, f"credential helper {helper.name} does not answer in time")


async def _run(helper: Helper) -> tuple[int, bytes]:
    with anyio.CancelScope(
        shield=True
    ):  # cancelled in between, only the program would be ended, not its children
        process = await anyio.open_process(
            [f"docker-credential-{helper.name}", "get"],
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    async with process:
        try:
            output = await _converse(process, helper.server)
            return await process.wait(), output
        finally:
            if process.returncode is None:
                _kill(process)


async def _converse(process: Process, server: str) -> bytes:
    assert process.stdin is not None  # noqa: S101  # both are pipes, as opened above
    assert process.stdout is not None  # noqa: S101
    try:
        await process.stdin.send(server.encode())
        await process.stdin.aclose()
    except anyio.BrokenResourceError:
        pass  # it does not want to know, and may answer all the same
    output = bytearray()
    async for chunk in process.stdout:
        output += chunk
        if len(output) > LONGEST_OUTPUT:
            _kill(process)
            break
    return bytes(output)


def _kill(process: Process) -> None:
    # Helpers are often shell scripts: what they are waiting for has to go as well.
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _read(registry: str, helper: Helper, output: bytes) -> Credentials | None:
    try:
        document = orjson.loads(output)
        username, secret = document["Username"], document["Secret"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        username = secret = None
    if not isinstance(username, str) or not isinstance(secret, str):
        fault = f"credential helper {helper.name} does not answer as helpers do"
        raise CredentialsUnavailableError(registry, fault)
    if username == USER_OF_IDENTITY_TOKENS:
        return Credentials(identity_token=Secret(secret))
    return basic_credentials(username, secret) if username or secret else None
