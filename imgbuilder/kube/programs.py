"""Programs that a kubeconfig names for credentials: runs them as kubectl does.

What they say on standard error goes to the user as it comes: it may be how to log in. What they print never gets
into logs or errors.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import anyio
from anyio.abc import Process
from kubernetes_asyncio.config import ConfigException
from kubernetes_asyncio.config.exec_provider import ExecProvider

LONGEST_OUTPUT: Final = 1024 * 1024


async def ask_program(described: Any) -> dict[str, str]:
    """What a program answers, under the names that a kubeconfig has for it in a user.

    A program may ask the user if we have a terminal. Cancelling it ends the program; without a terminal also what
    that has started.

    :param described: the ``exec`` of a user, in the form that the library has for it.
    :raises ConfigException: if the program fails, or what it prints are no credentials.
    :raises OSError: if it can't be run.
    """
    program = ExecProvider(described)
    interactive = os.isatty(0) and described.safe_get("interactiveMode") != "Never"
    status, output = await _run(program, interactive=interactive)
    if status != 0:
        raise ConfigException(
            f"exec: {Path(program.args[0]).name} ended with status {status}, see what it said"
        )
    try:
        return _user(json.loads(output), str(program.api_version))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        fault = f"exec: {Path(program.args[0]).name} did not print credentials of {program.api_version}"
        raise ConfigException(fault) from error


def _user(credential: dict[str, Any], version: str) -> dict[str, str]:
    """A kubeconfig's user, of what a program says: with a token, a certificate and its key, or all of them."""
    status = credential["status"]
    user = {}
    if status.get("token"):
        user["token"] = status["token"]
    if status.get("clientCertificateData"):
        user["client-certificate-data"] = _encoded(status["clientCertificateData"])
        user["client-key-data"] = _encoded(status["clientKeyData"])
    if not user or credential["kind"] != "ExecCredential" or credential["apiVersion"] != version:
        raise ValueError("not what was asked for")
    return user


def _encoded(pem: str) -> str:
    return base64.b64encode(pem.encode()).decode()


async def _run(program: ExecProvider, *, interactive: bool) -> tuple[int, bytes]:
    request = {
        "apiVersion": program.api_version,
        "kind": "ExecCredential",
        "spec": {"interactive": interactive},
    }
    # Cancelled in between, it would end the program only, not what that has started.
    with anyio.CancelScope(shield=True):
        process = await anyio.open_process(
            program.args,
            env=program.env | {"KUBERNETES_EXEC_INFO": json.dumps(request)},
            stdin=None if interactive else subprocess.DEVNULL,
            stderr=None,
            # In a session of its own it could not ask for a password: the terminal would not be its own.
            start_new_session=not interactive,
        )
    async with process:
        try:
            output = await _output(process)
            return await process.wait(), output
        except BaseException:
            _kill(process, group=not interactive)
            raise


async def _output(process: Process) -> bytes:
    assert process.stdout is not None  # noqa: S101  # it is a pipe, as opened above
    output = bytearray()
    async for chunk in process.stdout:
        output += chunk
        if len(output) > LONGEST_OUTPUT:
            raise ConfigException("exec: a program for credentials prints without an end")
    return bytes(output)


def _kill(process: Process, *, group: bool) -> None:
    # Many are shell scripts: what they are waiting for has to go as well.
    with suppress(ProcessLookupError):
        if group:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
