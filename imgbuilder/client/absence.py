"""What became of a build while nobody watched it, as far as the contract's calls can tell.

Asking for the build once more would tell, too, but have it built again if it failed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import anyio

from imgbuilder.client.errors import CallError, OutcomeUnknownError
from imgbuilder.client.imagebuilder import ImageBuilderClient
from imgbuilder.pb.builder import (
    BuildInfo,
    BuildRequest,
    BuildResponse,
    BuildStatus,
    ResolveWorkspaceImageRequest,
)

LIMIT: Final = 5.0
"""Seconds for a service to begin with the output of a build. That of a build that runs may be empty still."""

FAILED: Final = "it ended while the connection was lost, and its image is not there"


async def unseen_end(
    client: ImageBuilderClient, request: BuildRequest, last: BuildResponse, *, forced: bool
) -> BuildResponse | None:
    """How a build has ended that was *last* seen running; None if it runs, or nothing is known of it.

    :param forced: whether it was to be built although its image was there.
    :raises OutcomeUnknownError: if it has ended, and its image tells nothing.
    :raises ClientError: if the service can't be asked.
    """
    if last.info is None or not await _has_ended(client, last.info.build_id):
        return None
    question = ResolveWorkspaceImageRequest(source=request.source, auth=request.auth)
    image = await client.resolve_workspace_image(question)
    if image.ref != last.ref:
        return None  # what is asked for now is another image
    if image.status == BuildStatus.done_success:
        return succeeded(last, last.info, forced=forced)
    info = replace(last.info, status=BuildStatus.done_failure)
    return replace(last, status=BuildStatus.done_failure, message=FAILED, info=info)


def succeeded(last: BuildResponse, info: BuildInfo, *, forced: bool) -> BuildResponse:
    """The end of the build *info*, *last* seen running, now that its image is there.

    :raises OutcomeUnknownError: if it was *forced*: the image may have been there before.
    """
    if forced:
        raise OutcomeUnknownError(info.build_id)
    done = BuildStatus.done_success
    return replace(last, status=done, message="", info=replace(info, status=done))


async def _has_ended(client: ImageBuilderClient, build_id: str) -> bool:
    """Whether the service says that a build has ended. If not, it runs, or the service does not know it."""
    if await _runs(client, build_id) or not await _is_known(client, build_id):
        return False
    # A service that has just started may have come to know it in between.
    return not await _runs(client, build_id)


async def _runs(client: ImageBuilderClient, build_id: str) -> bool:
    return any(build.build_id == build_id for build in await client.list_builds())


async def _is_known(client: ImageBuilderClient, build_id: str) -> bool:
    with anyio.move_on_after(LIMIT):
        try:
            async with client.logs(build_id=build_id) as replies:
                await anext(replies, None)
                return True
        except CallError as error:
            if error.code == "UNAVAILABLE":
                raise
    return False
