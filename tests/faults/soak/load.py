"""The load: clients that build, attach, read logs quickly or slowly, list and resolve, for as long as it lasts."""

from __future__ import annotations

import random
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final

import anyio
import grpc
import grpc.aio

from imgbuilder.core.ids import SLOT_SECONDS
from imgbuilder.orchestrator.launching import SLOT_BORDER
from imgbuilder.pb.builder import (
    BuildRequest,
    BuildResponse,
    ListBuildsRequest,
    LogsRequest,
    LogsResponse,
    ResolveBaseImageRequest,
)
from tests.contract.service.client import everything
from tests.faults.processes.clients import FINAL, Server
from tests.faults.processes.wishes import Wish, draw
from tests.faults.soak.builds import Truth

IMAGES: Final = 300
BUILDERS: Final = 14
LONGEST_CALL: Final = 240.0
"""Seconds within which every Build call must have ended: builds take seconds, faults less than a minute, and
a start is tried for a minute."""

REGISTRY_TROUBLE: Final = 90.0
"""For how many seconds after a fault of the registry an error may be because of it."""


@dataclass(kw_only=True)
class Load:
    """All clients.

    :ivar servers: how they reach the service: directly, or over a network that is cut now and then.
    :ivar first_updates: when, how many seconds a Build call took until its first update, and whether nothing
        was wrong meanwhile.
    :ivar trouble_until: until when something is wrong, or was a moment ago.
    :ivar registry_failed_at: when the registry was out of order last.
    """

    truth: Truth
    servers: list[Server]
    chance: random.Random
    first_updates: deque[tuple[float, float, bool]] = field(default_factory=lambda: deque(maxlen=20_000))
    registry_failed_at: float = 0.0
    trouble_until: float = 0.0
    over: bool = False
    _wishes: list[tuple[Wish, str]] = field(default_factory=list)
    _calls: set[Any] = field(default_factory=set)

    async def run(self) -> None:
        """Until it is over, and all calls have ended."""
        for number in range(IMAGES):
            wish = draw(self.chance, number, patient=0.0)
            self._wishes.append((wish, self.truth.world.seed_base_image(wish.repository)))
        async with anyio.create_task_group() as group:
            self._group = group
            for _ in range(BUILDERS):
                group.start_soon(self._repeat, self._build, 0.5)
            group.start_soon(self._repeat, self._list, 0.5)
            group.start_soon(self._repeat, self._resolve, 0.1)
            group.start_soon(self._repeat, self._read_late, 0.5)

    def cut_some(self) -> None:
        """Some clients go away in the midst of their calls."""
        for call in self.chance.sample(sorted(self._calls, key=id), k=len(self._calls) // 3):
            call.cancel()

    async def _repeat(self, act: Any, pause: float) -> None:
        while not self.over:
            await act()
            await anyio.sleep(self.chance.uniform(0.0, 2 * pause))

    # --- Build ---

    async def _build(self) -> None:
        """Want an image until it is there, or its build has failed, or the client has had enough."""
        wish, base_image = self._wishes[min(int(self.chance.expovariate(1 / 60)), IMAGES - 1)]
        request = wish.request(base_image)
        request.force_rebuild = self.chance.random() < 0.6
        request.use_retry_client = self.chance.random() < 0.5
        for _ in range(20):
            if await self._call_build(request):
                return
            await anyio.sleep(self.chance.uniform(0.1, 1.0))

    async def _call_build(self, request: BuildRequest) -> bool:
        """Call once; whether that was enough."""
        server = self.chance.choice(self.servers)
        began = time.time()
        last: BuildResponse | None = None
        call = server.begin(request, self.chance)
        self._calls.add(call)
        self.truth.counts["Build calls"] += 1
        try:
            with anyio.fail_after(LONGEST_CALL):
                async for response in call:
                    if last is None:
                        self._first_update(began)
                        self._perhaps_read(response)
                    last = response
        except grpc.aio.AioRpcError as error:
            self._failed("Build", error)
            return error.code() is not grpc.StatusCode.UNAVAILABLE
        except TimeoutError:
            self.truth.break_promise(f"a Build call did not end, told {last}")
            return True
        except anyio.get_cancelled_exc_class():
            if not call.cancelled() or self._group.cancel_scope.cancel_called:
                raise
            self.truth.counts["calls cut"] += 1
            return True
        finally:
            self._calls.discard(call)
            call.cancel()
        if last is None or last.status not in FINAL:
            self.truth.break_promise(f"OK, but not the end of a build: {last}")
        else:
            self.truth.told_end(last)
        return True

    def _first_update(self, began: float) -> None:
        now = time.time()
        # Right before build ids change, starts wait: that is as it should be, and no matter of load.
        border = SLOT_SECONDS - began % SLOT_SECONDS < SLOT_BORDER
        calm = began > self.trouble_until and now > self.trouble_until and not border
        self.first_updates.append((now, now - began, calm))

    def _failed(self, method: str, error: grpc.aio.AioRpcError) -> None:
        """An error must be for a reason."""
        code = error.code()
        self.truth.counts[f"{method}: {code.name}"] += 1
        if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
            return
        if time.time() < self.registry_failed_at + REGISTRY_TROUBLE and "image" in (error.details() or ""):
            return
        self.truth.break_promise(f"{method}: {code} {error.details()}")

    # --- Logs ---

    def _perhaps_read(self, response: BuildResponse) -> None:
        if response.info is None or self.chance.random() < 0.4:
            return
        delay = self.chance.uniform(0.05, 0.5) if self.chance.random() < 0.2 else 0.0
        self._group.start_soon(self._read, response.info.build_id, delay)

    async def _read_late(self) -> None:
        """Read the log of a build that has ended a while ago."""
        ended = [build_id for build_id, built in self.truth.builds.items() if built.ended]
        if ended:
            await self._read(self.chance.choice(ended), 0.0)

    async def _read(self, build_id: str, delay: float) -> None:
        """Read a log; *delay* is how many seconds each chunk takes."""
        received = bytearray()
        call = self.chance.choice(self.servers).begin(LogsRequest(build_id=build_id), self.chance)
        self._calls.add(call)
        try:
            response: LogsResponse
            async for response in call:
                received += response.content
                if delay:
                    await anyio.sleep(delay)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:  # forgotten
                self._failed("Logs", error)
            return
        except anyio.get_cancelled_exc_class():
            if not call.cancelled() or self._group.cancel_scope.cancel_called:
                raise
            return
        finally:
            self._calls.discard(call)
            call.cancel()
        self.truth.counts["slow logs" if delay else "fast logs"] += 1
        self.truth.read(build_id, bytes(received))

    # --- the rest ---

    async def _list(self) -> None:
        await self._unary("ListBuilds", ListBuildsRequest())

    async def _resolve(self) -> None:
        _, base_image = self.chance.choice(self._wishes)
        missing = self.chance.random() < 0.1
        ref = base_image.replace("latest", "gone") if missing else base_image
        await self._unary(
            "ResolveBaseImage", ResolveBaseImageRequest(ref=ref, auth=everything()), missing=missing
        )

    async def _unary(self, method: str, request: Any, *, missing: bool = False) -> None:
        self.truth.counts[f"{method} calls"] += 1
        try:
            with anyio.fail_after(LONGEST_CALL):
                await self.chance.choice(self.servers).begin(request, self.chance)
        except grpc.aio.AioRpcError as error:
            if not (missing and error.code() is grpc.StatusCode.NOT_FOUND):
                self._failed(method, error)
        except TimeoutError:
            self.truth.break_promise(f"{method} did not end")
