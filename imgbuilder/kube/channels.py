"""What goes over the websocket of a port-forward: Kubernetes' ``v4.channel.k8s.io``, for one port.

Every message begins with the number of its channel: 0 is data, both ways, 1 is what the cluster has to say of an
error. The first two bytes that the cluster sends on each are the port. Only decodes: moves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

DATA: Final = 0
ERROR: Final = 1
PREAMBLE: Final = 2
"""Bytes of the port, of which there is one on each channel."""

LONGEST_ERROR: Final = 4096
"""Bytes of an error that are kept."""


def packed(data: bytes) -> bytes:
    """The message that carries *data* to the pod."""
    return bytes((DATA,)) + data


@dataclass(slots=True)
class Channels:
    """The channels of one websocket, as the cluster fills them.

    :ivar error: all that was said of an error so far; empty for none.
    """

    _skipped: dict[int, int] = field(default_factory=lambda: {DATA: 0, ERROR: 0})
    _error: bytes = b""

    @property
    def error(self) -> str:
        """What was said of an error, as one line; empty for nothing."""
        return " ".join(self._error.decode(errors="replace").split())

    def feed(self, message: bytes) -> bytes:
        """The data of the pod that is in *message*; empty if there is none."""
        if not message or message[0] not in self._skipped:
            return b""
        channel = message[0]
        skip = min(PREAMBLE - self._skipped[channel], len(message) - 1)
        self._skipped[channel] += skip
        content = message[1 + skip :]
        if channel == ERROR:
            self._error = (self._error + content)[:LONGEST_ERROR]
            return b""
        return content
