"""The standard health service of gRPC: tells load balancers and probes whether to send calls here.

The state is set by whoever runs the service, in `HealthState`; this only passes it on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import grpclib.server
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError

from imgbuilder.bus import Bus, Subscription, Topic
from imgbuilder.pb.grpc.health.v1 import (
    HealthCheckRequest,
    HealthCheckResponse,
    HealthCheckResponseServingStatus,
)
from imgbuilder.runtime.grpc.service import receive

SERVICE: Final = "grpc.health.v1.Health"

LONGEST_NAME: Final = 1000
"""Characters of a service's name; no longer one is known."""

_CHANGED: Final[Topic[None]] = Topic("health")

Stream = grpclib.server.Stream[HealthCheckRequest, HealthCheckResponse]


class HealthState:
    """Whether the server takes calls; not at first.

    :param services: which services there are; the server as a whole is always one, under the empty name.
    """

    def __init__(self, services: Collection[str]) -> None:
        self._services = frozenset(services) | {""}
        self._bus = Bus()
        self._serving = False
        self._ended = False

    @property
    def serving(self) -> bool:
        """Whether calls are taken."""
        return self._serving

    @property
    def ended(self) -> bool:
        """Whether the state will never change again."""
        return self._ended

    def set_serving(self, serving: bool) -> None:
        """Take calls from now on, or take none."""
        if serving != self._serving and not self._ended:
            self._serving = serving
            self._bus.publish(_CHANGED, None)

    def end(self) -> None:
        """Take no calls any more. Whoever watches is told, and its stream is ended with UNAVAILABLE."""
        self._serving = False
        self._ended = True
        self._bus.publish(_CHANGED, None)

    def status(self, service: str) -> HealthCheckResponseServingStatus:
        """The status of *service*, as the health service has it."""
        if service not in self._services:
            return HealthCheckResponseServingStatus.SERVICE_UNKNOWN
        if self._serving:
            return HealthCheckResponseServingStatus.SERVING
        return HealthCheckResponseServingStatus.NOT_SERVING

    @contextmanager
    def changes(self) -> Iterator[Subscription[None]]:
        """Receives something whenever the state has changed; how it is then is to be asked."""
        with self._bus.subscribe(_CHANGED) as subscription:
            yield subscription


class Health:
    """Serves ``grpc.health.v1.Health``."""

    def __init__(self, state: HealthState) -> None:
        self._state = state

    def __mapping__(self) -> Mapping[str, Handler]:
        kinds = (HealthCheckRequest, HealthCheckResponse)
        return {
            f"/{SERVICE}/Check": Handler(self.check, Cardinality.UNARY_UNARY, *kinds),
            f"/{SERVICE}/Watch": Handler(self.watch, Cardinality.UNARY_STREAM, *kinds),
        }

    async def check(self, stream: Stream) -> None:
        """Tell the status of a service; NOT_FOUND if there is none of this name."""
        service = (await receive(stream)).service
        status = self._state.status(service)
        if status is HealthCheckResponseServingStatus.SERVICE_UNKNOWN:
            raise GRPCError(Status.NOT_FOUND, "unknown service")
        await stream.send_message(HealthCheckResponse(status=status))

    async def watch(self, stream: Stream) -> None:
        """Tell the status of a service, and again whenever it has changed."""
        # Kept for as long as the stream is open.
        service = (await receive(stream)).service[:LONGEST_NAME]
        with self._state.changes() as changes:
            told = None
            while True:
                status = self._state.status(service)
                if status is not told:
                    await stream.send_message(HealthCheckResponse(status=status))
                    told = status
                if self._state.ended:
                    raise GRPCError(Status.UNAVAILABLE, "the server is stopping")
                await changes.receive()
