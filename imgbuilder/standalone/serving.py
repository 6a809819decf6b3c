"""The two addresses of the workspace manager: gRPC for workspaces, HTTP for their supervisors."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

import anyio

from imgbuilder.runtime.grpc.addresses import Address
from imgbuilder.runtime.grpc.server import Server
from imgbuilder.standalone.manager import Manager
from imgbuilder.standalone.service import WorkspaceManagerService, map_errors
from imgbuilder.standalone.supervisor import supervisor_app
from imgbuilder.telemetry.endpoints import ListenError, serving

LISTENERS_LIMIT: Final = 2000
"""Connections to supervisors; each reader of a build's output needs one."""

FAREWELL: Final = 2.0
"""Seconds that subscribers have to take what they were not told yet when the server is stopped."""


@asynccontextmanager
async def serving_grpc(manager: Manager, host: str, port: int) -> AsyncIterator[int]:
    """Serve the contract's calls inside the block; the port.

    At the end, calls that are open have a moment to end by themselves.

    :param port: 0 for any that is free.
    :raises ListenError: if the address can't be listened on.
    """
    address = Address(host, port)
    async with Server([WorkspaceManagerService(manager)], interceptors=[map_errors]) as server:
        try:
            bound = await server.listen(str(address))
        except OSError as error:
            raise ListenError(str(address), error.strerror or str(error)) from error
        try:
            yield bound.port
        finally:
            # Not told to leave yet: some clients, grpclib's too, would not hear the last events any more.
            with anyio.CancelScope(shield=True), anyio.move_on_after(FAREWELL):
                await server.drained()


def serving_supervisors(manager: Manager, host: str, port: int) -> AbstractAsyncContextManager[int]:
    """Serve the supervisors of all workspaces inside the block; the port.

    :param port: 0 for any that is free.
    :raises ListenError: if the address can't be listened on.
    """
    return serving(supervisor_app(manager.get), host, port, connections=LISTENERS_LIMIT)
