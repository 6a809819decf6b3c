"""Builds as the contract's messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from imgbuilder.core.builds import Build, BuildState
from imgbuilder.pb.builder import BuildInfo, BuildResponse, BuildStatus, LogInfo

OWNER_TOKEN_HEADER: Final = "x-gitpod-owner-token"  # noqa: S105  # a name, no token

STATUSES: Final[Mapping[BuildState, BuildStatus]] = {
    BuildState.STARTING: BuildStatus.running,
    BuildState.RUNNING: BuildStatus.running,
    BuildState.CHECKING: BuildStatus.running,
    BuildState.SUCCEEDED: BuildStatus.done_success,
    BuildState.FAILED: BuildStatus.done_failure,
}
"""What clients are told of each state. `BuildState.NOT_STARTED` is an error for them, not a state."""


def build_response(build: Build) -> BuildResponse:
    """What a client that waits for *build* is told of it now."""
    return BuildResponse(
        ref=build.ref,
        base_ref=build.base_ref,
        status=STATUSES[build.state],
        message=build.message,
        info=build_info(build),
    )


def first_response(build: Build) -> BuildResponse:
    """The first thing a client is told of a build: that it runs, also if it ended while the client asked."""
    response = build_response(build)
    if build.state.ended and response.info is not None:
        response.status = response.info.status = BuildStatus.running
        response.message = ""
    return response


def build_info(build: Build) -> BuildInfo:
    """What *build* is. Clients take the first address of its log that they see, so an empty one is never sent."""
    source = build.log_source
    return BuildInfo(
        ref=build.ref,
        base_ref=build.base_ref,
        build_id=build.build_id,
        status=STATUSES[build.state],
        started_at=build.started_at,
        log_info=LogInfo(url=source.url, headers={OWNER_TOKEN_HEADER: source.owner_token.reveal()})
        if source and source.url
        else None,
    )
