"""The builds of the soak: what is true of them, and whether what clients were told is that."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

import anyio

from imgbuilder.core.builds import ENDED_WHILE_AWAY, NO_IMAGE
from imgbuilder.core.references import parse_reference
from imgbuilder.orchestrator.logs.follower import CONNECTED, CONNECTING, FAILED, GAP
from imgbuilder.pb.builder import BuildResponse, BuildStatus
from imgbuilder.pb.wsman import WorkspacePhase
from tests.faults.processes.wishes import censored
from tests.faults.processes.world import KilledManager, KilledSupervisors
from tests.world.scripts import FAILURE, Stage
from tests.world.supervisor import REMEMBERED
from tests.world.workspaces import Workspace
from tests.world.world import World

Fate = Literal["succeeds", "fails", "leaves no image"]

KEPT: Final = 180.0
"""Seconds for which an ended build is remembered here: longer than any call takes."""


@dataclass(kw_only=True)
class Built:
    """A build, as it truly is."""

    workspace: Workspace
    fate: Fate
    began: float
    ending: bool = False
    ended: float | None = None


@dataclass(kw_only=True)
class Truth:
    """What is true, and what was told that is not.

    :ivar trouble_until: until when something was wrong with what logs depend on, a while of aftermath included.
    :ivar broken: promises that were seen to be broken.
    """

    world: World
    manager: KilledManager
    supervisors: KilledSupervisors
    chance: random.Random
    trouble_until: float = 0.0
    builds: dict[str, Built] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def break_promise(self, what: str) -> None:
        """A promise was broken."""
        self.broken.append(f"{time.strftime('%H:%M:%S')} {what}")

    # --- what happens in workspaces ---

    def started(self) -> None:
        """A workspace was started: there must be no other of its image."""
        newest = self.manager.history.pop()
        if len(self.manager.live(newest.ref)) > 1:
            self.break_promise(f"two workspaces at a time: {newest.ref}")

    async def script(self, stage: Stage) -> None:
        """A build of some seconds, long or short, talkative or not."""
        chance = self.chance
        fates: tuple[Fate, ...] = ("succeeds", "fails", "leaves no image")
        built = Built(
            workspace=stage.workspace,
            fate=chance.choices(fates, weights=(7, 2, 1))[0],
            began=time.time(),
        )
        self.builds[stage.workspace.id] = built
        self.counts["builds"] += 1
        self._forget_image(stage.workspace.ref)
        for phase in (WorkspacePhase.CREATING, WorkspacePhase.INITIALIZING, WorkspacePhase.RUNNING):
            stage.advance(phase, message=phase.name)
            await anyio.sleep(chance.uniform(0.0, 0.3))
        for text in self._output():
            stage.write(text)
            await anyio.sleep(chance.uniform(0.0, 0.4))
        stage.exit(0 if built.fate != "fails" else 1)
        if built.fate == "succeeds":
            stage.push()
        built.ending = True
        conditions = {"headless_task_failed": FAILURE} if built.fate == "fails" else {}
        stage.advance(WorkspacePhase.STOPPING, **conditions)
        await anyio.sleep(chance.uniform(0.0, 0.3))
        built.ended = time.time()
        stage.advance(WorkspacePhase.STOPPED)

    def _output(self) -> Iterator[str]:
        """Some lines; of one build in fifty a few MiB, so that there is something in the spool."""
        size = 40_000 if self.chance.random() < 0.02 else self.chance.choice((40, 40, 400, 4000))
        for _ in range(self.chance.randrange(1, 40 if size > 4000 else 15)):
            yield f"{self.chance.randbytes(size).hex()}\r\n"

    def _forget_image(self, ref: str) -> None:
        """What an earlier build has made must not be taken for what this one makes."""
        reference = parse_reference(ref)
        key = (reference.path, reference.tag or "")
        if key in self.world.registry._manifests:
            self.world.registry.delete(*key)

    def tidy(self) -> None:
        """Forget what nobody can ask after any more."""
        oldest = time.time() - KEPT
        for build_id, built in list(self.builds.items()):
            if built.ended is None and build_id not in self.manager.workspaces:
                built.ended = time.time()  # it was stopped
            if built.ended is not None and built.ended < oldest:
                del self.builds[build_id]
                self.supervisors.remove(build_id)
                self.supervisors.printed.pop(build_id, None)
        self.world.registry.requests.clear()
        self.manager.calls.clear()

    # --- what clients are told ---

    def told_end(self, last: BuildResponse) -> None:
        """A client was told of the end of a build."""
        self.counts[last.status.name or ""] += 1
        if last.info is None:
            return  # the image was there; it may have been deleted since
        built = self.builds.get(last.info.build_id)
        if built is None:
            self.break_promise(f"the end of a build that nobody knows: {last}")
        elif not built.ending:
            self.break_promise(f"the end of a build that runs: {last}")
        elif not _is_true(built.fate, last):
            self.break_promise(f"a build that {built.fate} ended with {last.status}: {last.message}")

    def read(self, build_id: str, log: bytes) -> None:
        """A client has read a log to its end."""
        self.counts["logs read"] += 1
        built = self.builds.get(build_id)
        if built is None:
            self.counts["logs of forgotten builds"] += 1
            return
        printed = censored(built.workspace, self.supervisors.printed[build_id])
        if log == CONNECTING + CONNECTED + printed:
            return
        forgotten = len(printed) > REMEMBERED and printed.endswith(log.removeprefix(CONNECTING + CONNECTED))
        if built.began > self.trouble_until and not forgotten:
            self.break_promise(
                f"log of {build_id}: {len(log)} bytes for {len(printed)}, and nothing was wrong"
            )
        elif not _is_part(log, printed):
            self.break_promise(f"log of {build_id} is not what was printed")
        else:
            self.counts["logs in part"] += 1


def _is_true(fate: Fate, last: BuildResponse) -> bool:
    if fate == "succeeds":
        return last.status is BuildStatus.done_success
    texts = {FAILURE} if fate == "fails" else {NO_IMAGE}
    return last.status is BuildStatus.done_failure and last.message in {
        *texts,
        f"{ENDED_WHILE_AWAY}: {NO_IMAGE}",
    }


def _is_part(log: bytes, printed: bytes) -> bool:
    """Whether *log* is what was printed, but for gaps that are marked, and an end that is missing.

    Its beginning can be missing as well, where the terminal had forgotten it before the service could first listen.
    """
    parts = log.replace(FAILED, b"").removeprefix(CONNECTING).removeprefix(CONNECTED).split(GAP)
    place = 0
    for number, part in enumerate(parts):
        found = printed.find(part, place)
        if found < 0 or (number == 0 and found > 0 and len(printed) <= REMEMBERED):
            return False
        place = found + len(part)
    return True
