"""What goes wrong in the soak: one thing after another, a pause between them."""

from __future__ import annotations

import math
import random
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

import anyio

from tests.faults.soak.builds import Truth
from tests.faults.soak.load import Load
from tests.world.proxy import TcpProxy
from tests.world.registries.httpd import Respond
from tests.world.registries.misbehaving import Fault, Reset, Truncate, WrongBody

LONGEST_SILENCE: Final = 35.0
"""Seconds: longer than it takes to find that a connection to the workspace manager is dead."""

AFTERMATH: Final = 5.0
"""Seconds after a fault in which clients may still wait because of it."""

OF_LOGS: Final = ("manager killed", "manager silent", "supervisors killed", "log streams broken")
"""What logs depend on: who does not hear of a workspace's address, or can't reach it, has no log."""

AFTERMATH_OF_LOGS: Final = 10.0
"""Seconds until the service is subscribed again, and listens again, at the latest."""

Act = Callable[[], Awaitable[None]]


@dataclass(kw_only=True)
class Disturbances:
    """All faults.

    :ivar struck: when what went wrong.
    """

    truth: Truth
    load: Load
    network: TcpProxy
    chance: random.Random
    struck: list[tuple[float, str]] = field(default_factory=list)

    async def run(self, until: float) -> None:
        """Let things go wrong until the Unix time *until*, and then no more."""
        acts: dict[str, tuple[int, Act]] = {
            "manager killed": (4, self._kill_manager),
            "manager silent": (1, self._silence_manager),
            "supervisors killed": (3, self._kill_supervisors),
            "log streams broken": (4, self._break_streams),
            "registry errors": (4, self._break_registry),
            "clients gone": (4, self._cut_clients),
            "clients' network cut": (2, self._cut_network),
            "clients' network silent": (1, self._freeze_network),
        }
        while True:
            await anyio.sleep(self.chance.uniform(5.0, 20.0))
            (name,) = self.chance.choices(list(acts), weights=[weight for weight, _ in acts.values()])
            if time.time() + LONGEST_SILENCE > until:
                return
            self.struck.append((time.time(), name))
            self.truth.counts[f"fault: {name}"] += 1
            self.load.trouble_until = math.inf
            if name in OF_LOGS:
                self.truth.trouble_until = math.inf
            await acts[name][1]()
            self.load.trouble_until = time.time() + AFTERMATH
            if name in OF_LOGS:
                self.truth.trouble_until = time.time() + AFTERMATH_OF_LOGS

    async def _kill_manager(self) -> None:
        await self.truth.manager.stop()
        await anyio.sleep(self.chance.choice((0.0, 1.0, 5.0)))
        await self.truth.manager.start()

    async def _silence_manager(self) -> None:
        """It is there, and does nothing: connections are half open."""
        self.truth.manager.process.send_signal(signal.SIGSTOP)
        await anyio.sleep(self.chance.uniform(5.0, LONGEST_SILENCE))
        self.truth.manager.process.send_signal(signal.SIGCONT)

    async def _kill_supervisors(self) -> None:
        await self.truth.supervisors.stop()
        await anyio.sleep(self.chance.choice((0.0, 1.0, 3.0)))
        await self.truth.supervisors.start()

    async def _break_streams(self) -> None:
        self.truth.supervisors.break_streams()

    async def _break_registry(self) -> None:
        faults: list[Fault] = [
            Respond(500),
            Respond(503),
            Respond(429, {"Retry-After": "1"}),
            Reset(),
            Truncate(),
            WrongBody(),
        ]
        self.load.registry_failed_at = time.time()
        self.truth.world.registry.fail_next(*self.chance.choices(faults, k=self.chance.randint(1, 12)))

    async def _cut_clients(self) -> None:
        self.load.cut_some()

    async def _cut_network(self) -> None:
        self.network.cut()

    async def _freeze_network(self) -> None:
        """Clients are silent: the service has to find out that they are gone, or wait for them."""
        self.network.freeze()
        await anyio.sleep(self.chance.uniform(5.0, LONGEST_SILENCE))
        self.network.thaw()
