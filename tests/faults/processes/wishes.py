"""What is wanted and what becomes of it: builds whose output and end are drawn from a seed."""

from __future__ import annotations

import base64
import random
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

import anyio

from imgbuilder.core.builds import ENDED_WHILE_AWAY, NO_IMAGE
from imgbuilder.orchestrator.logs.follower import CONNECTED, CONNECTING
from imgbuilder.pb.builder import BuildRequest, BuildResponse, BuildSource, BuildStatus
from imgbuilder.pb.contentservice import GitAuthMethod, GitConfig, GitInitializer, WorkspaceInitializer
from imgbuilder.pb.wsman import StartWorkspaceRequest, WorkspacePhase
from tests.contract.service.client import dockerfile, everything, reference
from tests.world.scripts import FAILURE, Stage
from tests.world.workspaces import Workspace

Fate = Literal["succeeds", "fails", "leaves no image"]

SECRET: Final = "hunter2"
"""Stands in every secret, before something that says where it is from."""

_NUMBER: Final = re.compile(r"wish-([0-9]+)[@.]")


@dataclass(frozen=True, kw_only=True)
class Wish:
    """An image that is wanted.

    :ivar patient: whether its build runs until it is let go; another ends whatever is away just then.
    :ivar pause: seconds between two things that happen in its build.
    :ivar lingers: seconds until its build has noticed that it was let go.
    :ivar before, after: what the task prints before and after that.
    """

    number: int
    by_dockerfile: bool
    fate: Fate
    patient: bool
    pause: float
    lingers: float
    before: tuple[bytes, ...]
    after: tuple[bytes, ...]

    @property
    def repository(self) -> str:
        """Where its base image is."""
        return f"wish-{self.number}"

    def request(self, base_image: str) -> BuildRequest:
        """Asks for it."""
        auth = everything({"ghcr.io": _pair(f"{SECRET}-additional")})
        return BuildRequest(source=self._source(base_image), auth=auth, triggered_by="somebody")

    def _source(self, base_image: str) -> BuildSource:
        if not self.by_dockerfile:
            return reference(base_image)
        config = GitConfig(authentication=GitAuthMethod.BASIC_AUTH, auth_password=f"{SECRET}-git")
        git = GitInitializer(
            remote_uri=f"https://git.test/{self.repository}.git", clone_taget="main", config=config
        )
        return dockerfile(source=WorkspaceInitializer(git=git))

    def may_end_with(self, last: BuildResponse) -> bool:
        """Whether *last* tells the truth of how it ended."""
        if self.fate == "succeeds":
            return last.status is BuildStatus.done_success
        texts = {FAILURE} if self.fate == "fails" else {NO_IMAGE}
        # Nobody is left to ask for the reason, where the workspace manager was away at the end.
        texts.add(f"{ENDED_WHILE_AWAY}: {NO_IMAGE}")
        return last.status is BuildStatus.done_failure and last.message in texts


def draw(chance: random.Random, number: int, *, patient: float) -> Wish:
    """A wish.

    :param patient: how likely it is that its build waits to be let go.
    """
    return Wish(
        number=number,
        by_dockerfile=chance.random() < 0.3,
        fate=chance.choices(("succeeds", "fails", "leaves no image"), weights=(7, 2, 1))[0],
        patient=chance.random() < patient,
        pause=chance.choice((0.0, 0.01, 0.1)),
        lingers=chance.uniform(0.0, 1.5),
        before=tuple(_line(chance) for _ in range(chance.randrange(1, 12))),
        after=tuple(_line(chance) for _ in range(chance.randrange(6))),
    )


def number_of(request: StartWorkspaceRequest) -> int:
    """The number of the wish that a workspace is to fulfil."""
    text = request.metadata.annotations["baseref"] if request.metadata else ""
    if request.spec and request.spec.initializer and request.spec.initializer.git:
        text = request.spec.initializer.git.remote_uri
    found = _NUMBER.search(text)
    assert found is not None, f"a workspace that nobody wanted: {request}"
    return int(found[1])


async def fulfil(wish: Wish, stage: Stage, let_go: anyio.Event) -> None:
    """What happens in the workspace."""
    for phase in (WorkspacePhase.CREATING, WorkspacePhase.INITIALIZING, WorkspacePhase.RUNNING):
        stage.advance(phase, message=f"{phase.name}")
        await anyio.sleep(wish.pause)
    await _print(stage, wish.before, wish.pause)
    if wish.patient:
        await let_go.wait()
        await anyio.sleep(wish.lingers)
    await _print(stage, wish.after, wish.pause)
    stage.exit(0 if wish.fate != "fails" else 1)
    if wish.fate == "succeeds":
        stage.push()
    conditions = {"headless_task_failed": FAILURE} if wish.fate == "fails" else {}
    stage.advance(WorkspacePhase.STOPPING, **conditions)
    await anyio.sleep(wish.pause)
    stage.advance(WorkspacePhase.STOPPED)


async def _print(stage: Stage, lines: Iterable[bytes], pause: float) -> None:
    for line in lines:
        stage.write(line.decode().replace("REF", stage.workspace.ref))
        await anyio.sleep(pause)


def log_of(workspace: Workspace, printed: bytes | bytearray) -> bytes:
    """What the log of a build must be whose task has *printed* so much."""
    return CONNECTING + CONNECTED + censored(workspace, printed)


def censored(workspace: Workspace, printed: bytes | bytearray) -> bytes:
    """What readers may see of it."""
    words = [workspace.ref, workspace.ref.rpartition(":")[0]]
    for word in words:
        printed = bytes(printed).replace(word.encode(), b"")
    return bytes(printed)


def _line(chance: random.Random) -> bytes:
    """A line as no other, long or short; some name an image that nobody may read of."""
    text = chance.randbytes(chance.choice((20, 20, 2000))).hex()
    return f"{text}{' REF ' if chance.random() < 0.1 else ''}\r\n".encode()


def _pair(password: str) -> str:
    return base64.b64encode(f"user:{password}".encode()).decode()
