"""A trial: many builds, clients that want them, processes to kill, and the verdict on what clients were told."""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import anyio
from anyio.abc import TaskGroup

from imgbuilder.orchestrator.logs.follower import CONNECTING, FAILED, GAP
from imgbuilder.pb.builder import BuildResponse
from tests.faults.processes.clients import BuildClient, LogReader, Server
from tests.faults.processes.programs import Program, Service, free_port, is_listened_to
from tests.faults.processes.wishes import SECRET, Wish, censored, draw, fulfil, log_of, number_of
from tests.faults.processes.world import KilledManager, KilledSupervisors
from tests.world.registries.misbehaving import FakeRegistry
from tests.world.scripts import Stage
from tests.world.supervisor import REMEMBERED
from tests.world.workspaces import Workspace
from tests.world.world import World

PATIENCE: Final = 90.0
"""Seconds until a test fails that waits: far more than it takes, for machines that are busy."""

SEED: Final = int(os.environ.get("PROCESSES_SEED", "1"))
"""Decides what is drawn: moments, builds, who reads."""

LOOKS_EVERY: Final = 0.02


class Trial:
    """The processes, the wishes and the clients of one test.

    :ivar broken: promises that were seen to be broken.
    :ivar asked: how many starts of workspaces were asked for and taken in.
    """

    def __init__(self, seed: int, folder: Path, world: World, group: TaskGroup) -> None:
        self.chance = random.Random(f"processes {seed}")
        self.folder = folder
        self.world = world
        self.group = group
        self.manager = KilledManager(port=free_port(), group=group)
        self.supervisors = KilledSupervisors(port=free_port(), group=group)
        self.services: list[Service] = []
        self.servers: list[Server] = []
        self.wishes: list[Wish] = []
        self.clients: list[BuildClient] = []
        self.readers: dict[str, LogReader] = {}
        self.let_go = anyio.Event()
        self.broken: list[str] = []
        self.reads = 0.5
        self.lost: dict[str, slice] = {}
        """What supervisors have lost of some output."""
        self._base_images: list[str] = []
        self._kills: list[tuple[int, Callable[[], None]]] = []
        world.manager = self.manager
        world.supervisors = self.supervisors
        world.script = self._script
        self.manager.on_asked = self._asked

    # --- what runs ---

    @property
    def programs(self) -> Iterator[Program]:
        """All of them."""
        yield from (self.manager.process, self.supervisors.process, *self.services)

    async def add_service(self) -> Service:
        """Another replica of the service, that runs."""
        name = f"service {len(self.services)}"
        port = free_port()
        config = self.world.service_config(logs={"folder": str(self.folder / name)})
        service = Service(config, self.folder, self.group, name=name, port=port)
        self.services.append(service)
        await service.start()
        self.servers.append(Server(port))
        return service

    # --- what is wanted ---

    def want(self, wishes: int, clients: int, *, patient: float, within: float) -> None:
        """Let *clients* want *wishes* images in all, beginning at moments *within* so many seconds."""
        for number in range(wishes):
            wish = draw(self.chance, number, patient=patient)
            self.wishes.append(wish)
            self._base_images.append(self.world.seed_base_image(wish.repository))
        for number in range(clients):
            wish = self.wishes[number % wishes]
            client = BuildClient(
                name=f"client {number} of wish {wish.number}",
                wish=wish.number,
                request=wish.request(self._base_images[wish.number]),
                servers=self.servers,
                chance=random.Random(self.chance.random()),
                after=self.chance.uniform(0.0, within),
            )
            if self.chance.random() < self.reads:
                client.on_told = lambda response, client=client: self._told(client, response)  # type: ignore[misc]  # the default binds it
            self.clients.append(client)
            self.group.start_soon(client.run, name=client.name)

    def _told(self, client: BuildClient, response: BuildResponse) -> None:
        """A client that wants the log, too, knows of a build."""
        build_id = response.info.build_id if response.info else ""
        if not build_id or build_id in self.readers:
            return
        reader = self.readers[build_id] = LogReader(
            name=f"log of {client.name}",
            build_id=build_id,
            servers=self.servers,
            chance=random.Random(self.chance.random()),
            is_over=lambda: build_id not in self.manager.workspaces,
        )
        self.group.start_soon(reader.run, name=reader.name)

    async def _script(self, stage: Stage) -> None:
        wish = self.wishes[number_of(stage.workspace.request)]
        await fulfil(wish, stage, self.let_go)

    # --- when something is to go wrong ---

    @property
    def asked(self) -> int:
        """How many workspaces were started."""
        return len(self.manager.history)

    def strike_at(self, asked: int, program: Program) -> anyio.Event:
        """Kill *program* in the very moment in which so many workspaces were asked for; is set then."""
        struck = anyio.Event()

        def strike() -> None:
            program.send_signal(signal.SIGKILL)
            struck.set()

        self._kills.append((asked, strike))
        return struck

    def patient_builds(self) -> list[str]:
        """Those whose log is read, and which run until they are let go."""
        return [
            build_id
            for build_id, workspace in self.manager.workspaces.items()
            if build_id in self.readers and self.wishes[number_of(workspace.request)].patient
        ]

    def flood(self, build_id: str, size: int) -> None:
        """Print more in a build than its terminal remembers, while nobody listens."""
        before = len(self.supervisors.printed[build_id])
        self.supervisors.write(build_id, self.chance.randbytes(size // 2).hex().encode() + b"\n")
        self.lost[build_id] = slice(before, before + size + 1 - REMEMBERED)

    def _asked(self) -> None:
        newest = self.manager.history[-1]
        if len(self.manager.live(newest.ref)) > 1:
            self.broken.append(f"two workspaces at a time: {newest.ref}")
        for asked, strike in list(self._kills):
            if self.asked >= asked:
                self._kills.remove((asked, strike))
                strike()

    # --- waiting ---

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for *condition*.

        :raises AssertionError: if it takes too long, or there is no use in waiting.
        """
        with anyio.move_on_after(PATIENCE):
            while not condition():
                assert not self.broken, self.broken
                refused = [client for client in self.clients if client.refusal]
                assert not refused, f"{refused[0].name}: {refused[0].refusal!r}"
                dead = [
                    f"{program.name} died: {program.said[-20:]}" for program in self.programs if program.died
                ]
                assert not dead, dead
                wrong = [record for service in self.services for record in service.records if _is_bad(record)]
                assert not wrong, wrong[0]
                await anyio.sleep(LOOKS_EVERY)
            return
        raise AssertionError(f"{what} takes too long: {self.story()}")

    async def settled(self) -> None:
        """Wait until all have what they can have before builds are let go."""
        await self.until(lambda: all(map(self._attached, self.clients)), "attaching")
        await self.until(lambda: all(map(self.caught_up, self.readers.values())), "catching up with logs")

    async def finished(self) -> None:
        """Wait until all clients know how it ended."""
        await self.until(lambda: all(client.ended for client in self.clients), "ending")
        await self.until(
            lambda: all(reader.complete or reader.gone for reader in self.readers.values()), "ending logs"
        )

    def _attached(self, client: BuildClient) -> bool:
        """Whether a client is told of its build by a call that goes on."""
        return client.ended or (
            bool(client.calls) and len(client.errors) < len(client.calls) and bool(client.last)
        )

    def caught_up(self, reader: LogReader) -> bool:
        """Whether a reader has all that a patient build prints before it is let go."""
        workspace = self.manager.workspaces.get(reader.build_id)
        if workspace is None or reader.complete or reader.gone:
            return True
        wish = self.wishes[number_of(workspace.request)]
        printed = self.supervisors.printed[workspace.id]
        all_printed = printed.count(b"\n") >= len(wish.before)
        return not wish.patient or (all_printed and reader.received == self.expected_log(workspace))

    # --- the verdict ---

    def expected_log(self, workspace: Workspace) -> bytes:
        """What its log must be by now."""
        printed = self.supervisors.printed[workspace.id]
        if workspace.id not in self.lost:
            return log_of(workspace, printed)
        lost = self.lost[workspace.id]
        return log_of(workspace, printed[: lost.start]) + GAP + censored(workspace, printed[lost.stop :])

    def judge(self, *, restarted: bool = False) -> None:
        """Fail if a promise was broken.

        :param restarted: whether a process of the service was, which forgets logs of builds that have ended.
        """
        for client in self.clients:
            self._judge_client(client)
        starts = Counter(number_of(workspace.request) for workspace in self.manager.history)
        for wish in self.wishes:
            if wish.patient and starts[wish.number] != 1:
                self.broken.append(f"{starts[wish.number]} workspaces for wish {wish.number}")
        for workspace in self.manager.history:
            if workspace.id in self.readers:
                self._judge_log(workspace, self.readers[workspace.id], restarted=restarted)
        secrets = self._secrets()
        for program in self.programs:
            said = b"\n".join(program.said)
            self.broken += [f"{program.name} tells {secret!r}" for secret in secrets if secret in said]
        for service in self.services:
            self.broken += [f"{service.name}: {record}" for record in service.records if _is_bad(record)]
        assert not self.broken, "\n".join([*self.broken, self.story()])

    def _judge_client(self, client: BuildClient) -> None:
        wish = self.wishes[client.wish]
        if client.refusal is not None or client.last is None:
            self.broken.append(f"{client.name}: {client.refusal!r}")
        elif not wish.may_end_with(client.last):
            self.broken.append(f"{client.name}, {wish.fate}: {client.last.status} {client.last.message}")
        if wish.patient and len(client.build_ids) != 1:
            self.broken.append(f"{client.name} was told of {len(client.build_ids)} builds")

    def _judge_log(self, workspace: Workspace, reader: LogReader, *, restarted: bool) -> None:
        wish = self.wishes[number_of(workspace.request)]
        expected = self.expected_log(workspace)
        if wish.patient and reader.complete and reader.received != expected:
            self.broken.append(f"{reader.name}: {len(reader.received)} of {len(expected)} bytes")
        # Of a build that ended while its supervisor was away there may be less; never anything else.
        had = bytes(reader.received).replace(FAILED, b"")
        if not wish.patient and had != CONNECTING and not expected.startswith(had):
            self.broken.append(f"{reader.name} is not what was printed")
        if reader.gone and not restarted:
            self.broken.append(f"{reader.name} is gone")

    def _secrets(self) -> list[bytes]:
        tokens = [workspace.owner_token for workspace in self.manager.history]
        return [secret.encode() for secret in (SECRET, *self.world.registry.tokens, *tokens)]

    def story(self) -> str:
        """Where everybody stands."""
        waiting = [client for client in self.clients if not client.ended]
        lines = [f"{len(waiting)} of {len(self.clients)} clients do not know how it ended"]
        for client in waiting[:5]:
            errors = [f"{each.server.port}: {each.error!r}" for each in client.errors[-3:]]
            lines.append(f"  {client.name}: told {client.last}, {errors}")
        lines += [
            f"  {reader.name}: {len(reader.received)} bytes in attempt {reader.attempts}"
            for reader in self.readers.values()
            if not (reader.complete or reader.gone)
        ]
        for service in self.services:
            warnings = [
                f"{each.get('time')} {each.get('message')} {each.get('reason')}"
                for each in service.records
                if each.get("level") != "info"
            ]
            lines += [f"{service.name}:", *warnings[-20:]]
        return "\n".join(lines)


def _is_bad(record: dict[str, object]) -> bool:
    """Whether the service should never say that."""
    return record.get("level") not in ("info", "warning", "debug")


@asynccontextmanager
async def trial(seed: int, folder: Path, *, services: int = 1) -> AsyncIterator[Trial]:
    """A trial whose world and *services* run; at its end nothing of them may be left."""
    registry = FakeRegistry(authentication="token", users={"service": f"{SECRET}-own"})
    world = World(registry=registry)
    async with AsyncExitStack() as stack:
        group = await stack.enter_async_context(anyio.create_task_group())
        tried = Trial(seed, folder, world, group)
        try:
            await stack.enter_async_context(world)
            async with anyio.create_task_group() as starting:
                for _ in range(services):
                    starting.start_soon(tried.add_service)
            yield tried
            await _end(tried)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
        finally:
            with anyio.CancelScope(shield=True):
                for program in tried.programs:
                    await program.kill()
                for server in tried.servers:
                    await server.close()
            group.cancel_scope.cancel()


async def _end(tried: Trial) -> None:
    """End what runs, as it is done in peace, and look for what is left."""
    for service in tried.services:
        if service.pid:
            status = await service.stop()
            assert status == 0, f"{service.name} ended with {status}: {service.records[-5:]}"
        left = [path for path in (tried.folder / service.name).rglob("*") if path.is_file()]
        assert not left, f"{service.name} left {left}"
    await tried.manager.stop()
    await tried.supervisors.stop()
    ports: Sequence[int] = (
        tried.manager.port,
        tried.supervisors.port,
        *(each.port for each in tried.services),
    )
    assert not [port for port in ports if is_listened_to(port)]
