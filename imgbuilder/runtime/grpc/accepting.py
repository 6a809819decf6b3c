"""Accepts connections, and sees them through TLS.

In the place of asyncio's own server, which knows nothing of a connection until TLS is set up, and so could
neither limit nor count those that never get there.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Final

import structlog

from imgbuilder.runtime.grpc.addresses import Address
from imgbuilder.runtime.grpc.limits import CutOff

log = structlog.get_logger(__name__)

PAUSE: Final = 0.5
"""Seconds until the next try, where the system has no file or no memory for another connection."""

AT_ONCE: Final = 32
"""Connections that are accepted in a row. asyncio does not wait for one that is there, however many come."""

Accepted = Callable[[socket.socket, Address], None]
"""Takes a connection that was accepted, and closes it in the end."""


class Accepting:
    """Accepts connections on *listener*, which it closes, until `stop`.

    :param accepted: is called for each.
    """

    def __init__(self, listener: socket.socket, accepted: Accepted) -> None:
        self._listener = listener
        self._accepted = accepted
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._run())
        self._task.add_done_callback(lambda _: listener.close())  # also if it never ran

    async def stop(self) -> None:
        """Accept no more. Those that the system has taken and nobody has accepted are closed."""
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        failing = False
        in_a_row = 0
        while True:
            if in_a_row == AT_ONCE:
                in_a_row = 0
                await asyncio.sleep(0)
            try:
                connection, address = await self._loop.sock_accept(self._listener)
            except ConnectionAbortedError:
                continue  # the peer has changed its mind
            except OSError as error:
                # out of files or memory, most likely: others may give some back
                if not failing:
                    log.warning("no connection can be accepted", reason=error.strerror)
                failing = True
                await asyncio.sleep(PAUSE)
                continue
            failing = False
            in_a_row += 1
            try:
                self._accepted(connection, Address(*address[:2]))
            except Exception:
                log.exception("a connection could not be accepted")
                connection.close()


async def set_up(
    protocol: asyncio.Protocol, connection: socket.socket, *, tls: ssl.SSLContext | None, patience: float
) -> tuple[CutOff, str] | None:
    """Make *connection* with *protocol*; why that failed, if the peer is to blame.

    :param patience: seconds that the peer may take for TLS.
    """
    loop = asyncio.get_running_loop()
    try:
        if connection.family in {socket.AF_INET, socket.AF_INET6}:
            # Without waiting for acknowledgements of earlier, smaller writes: answers would take 40 ms.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        async with asyncio.timeout(patience if tls is not None else None):
            await loop.connect_accepted_socket(lambda: protocol, connection, ssl=tls)
    except TimeoutError:
        return CutOff.HANDSHAKE, "TLS"
    except ssl.SSLError as error:
        return CutOff.TLS, error.reason or ""
    except OSError as error:
        log.debug("a peer has left before it was connected", reason=str(error))
    return None
