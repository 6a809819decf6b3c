"""Clients of the service: they call Build and Logs, leave when they like, read as slowly as they like."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Final, cast

import anyio
import anyio.lowlevel
import grpclib.server

from imgbuilder.api.statuses import answer_to
from imgbuilder.core.errors import ImgbuilderError
from imgbuilder.pb.builder import (
    BuildRequest,
    BuildResponse,
    BuildSource,
    BuildSourceReference,
    BuildStatus,
    LogsRequest,
)
from tests.faults.simulation import registry
from tests.faults.simulation.invariants import BUILD_LIMIT, Judge
from tests.faults.simulation.logs import read_log
from tests.faults.simulation.replica import Life, Replica
from tests.faults.simulation.scenario import BuildCalls
from tests.faults.simulation.world import World

Call = tuple[str, str]
"""How a call ended: the status's name and the message."""

FINAL: Final = frozenset({BuildStatus.done_success, BuildStatus.done_failure})
CONNECTION_LOST: Final[Call] = ("UNAVAILABLE", "connection lost")


class BuildClient:
    """Wants an image."""

    def __init__(
        self, number: int, plan: BuildCalls, *, world: World, replicas: Sequence[Replica], judge: Judge
    ) -> None:
        self.name = f"client {number}"
        self.plan = plan
        self._world = world
        self._replicas = replicas
        self._judge = judge
        self._chance = random.Random(f"client {world.scenario.seed} {number}")

    async def run(self) -> None:
        """Call until told how it ended, or until it is enough."""
        await anyio.sleep(self.plan.at)
        async with anyio.create_task_group() as group:
            self._group = group
            await self._build()

    async def _build(self) -> None:
        with anyio.move_on_after(self.plan.leaves_after) as patience:
            replica = self._replicas[self.plan.replica]
            for _ in range(self.plan.attempts):
                status, _message = await self._call(replica)
                if status != "UNAVAILABLE":
                    return
                await anyio.sleep(self._chance.uniform(0.1, 3.0))
                replica = self._chance.choice([replica, *self._replicas])
        if patience.cancelled_caught:
            self._world.trace.note(self.name, "left")

    async def _call(self, replica: Replica) -> Call:
        life = replica.life
        if life is None:
            return CONNECTION_LOST
        request = BuildRequest(
            source=BuildSource(ref=BuildSourceReference(ref=f"registry.test/base:{self.plan.image}")),
            force_rebuild=self.plan.forced,
            base_image_name_resolved=f"registry.test/base@{registry.DIGEST}" if self.plan.named else "",
            use_retry_client=self.plan.retries,
            triggered_by=self.name,
        )
        stream = BuildStream(self, life, request)
        self._world.trace.note(
            self.name, "calls Build", replica=life.name, image=self.plan.image, forced=self.plan.forced
        )
        began = stream.began
        ended: Call = ("OK", "")
        scope = anyio.CancelScope(deadline=began + BUILD_LIMIT)
        life.calls[scope] = None
        try:
            with scope:
                await life.api.build(cast("grpclib.server.Stream[Any, Any]", stream))
        except ImgbuilderError as error:
            answer = answer_to(error, "Build")
            ended = (answer.status.name, answer.message) if answer else ("INTERNAL", repr(error))
        finally:
            del life.calls[scope]
        if scope.cancelled_caught:
            if not life.killed:
                self._judge.broken("a Build call has an end", f"{self.name} waits since {began:.3f}")
            ended = CONNECTION_LOST
        self._world.trace.note(self.name, "Build ended", status=ended[0], message=ended[1])
        self._judge.call_ended(stream, ended)
        return ended

    def told_first(self, response: BuildResponse) -> None:
        """A call is told of a build: time to read its log."""
        if self.plan.reads_log and response.info is not None:
            self._group.start_soon(self._read_log, response)

    async def _read_log(self, response: BuildResponse) -> None:
        await anyio.sleep(self.plan.reads_log_after)
        life = self._replicas[self.plan.reads_log_at].life
        if life is None or response.info is None:
            return
        by = self._chance.choice(("ref", "id", "both"))
        request = LogsRequest(
            build_ref="" if by == "id" else response.ref,
            build_id="" if by == "ref" else response.info.build_id,
        )
        plan = self.plan
        await read_log(f"{self.name}'s log", life, request, plan.slowness, plan.leaves_log_after, self._judge)


class BuildStream:
    """What a handler of Build sees of a client, and what the client was told."""

    def __init__(self, client: BuildClient, life: Life, request: BuildRequest) -> None:
        self.client = client
        self.life = life
        self.request = request
        self.told: list[BuildResponse] = []
        self.began = client._world.now()

    async def recv_message(self) -> BuildRequest:
        """The request."""
        return self.request

    async def send_message(self, response: BuildResponse) -> None:
        """Take a response, at the client's pace."""
        self.client._judge.told(self, response)
        self.told.append(response)
        if len(self.told) == 1:
            self.client.told_first(response)
        world = self.client._world
        build_id = response.info.build_id if response.info else ""
        world.trace.note(
            self.client.name,
            f"told {response.status.name}",
            build=world.name(build_id) if build_id else "",
            message=response.message,
        )
        if self.client.plan.slowness:
            await anyio.sleep(self.client.plan.slowness)
