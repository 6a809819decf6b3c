"""What the service answers, as documents that can be printed as JSON, queried, or put into a template.

Fields are spelled as in the contract's JSON. Tokens are left out: what is printed ends up in the logs of others.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from imgbuilder.pb.builder import BuildInfo, BuildResponse, BuildStatus, ResolveWorkspaceImageResponse

Document = dict[str, Any]


def build_document(response: BuildResponse, build_id: str = "") -> Document:
    """How a build stands.

    :param build_id: is used where the response has none.
    """
    info = response.info or BuildInfo()
    return {
        "ref": response.ref,
        "baseRef": response.base_ref,
        "status": status_name(response.status),
        "message": response.message,
        "buildId": info.build_id or build_id,
        "startedAt": timestamp(info.started_at),
        "logUrl": info.log_info.url if info.log_info else "",
    }


def info_document(info: BuildInfo) -> Document:
    """A build in the list of those that run."""
    return {
        "ref": info.ref,
        "baseRef": info.base_ref,
        "status": status_name(info.status),
        "buildId": info.build_id,
        "startedAt": timestamp(info.started_at),
        "logUrl": info.log_info.url if info.log_info else "",
    }


def workspace_image_document(response: ResolveWorkspaceImageResponse) -> Document:
    """The workspace image of a source."""
    return {
        "ref": response.ref,
        "baseRef": response.base_ref,
        "status": status_name(response.status),
        "exists": response.status == BuildStatus.done_success,
    }


def status_name(status: BuildStatus) -> str:
    """The contract's name of *status*; that of one it does not have is its number."""
    return status.name or str(int(status))


def timestamp(seconds: int) -> str:
    """*seconds* of Unix time as RFC 3339 has it, in UTC; empty for 0, and for what no calendar has."""
    if not seconds:
        return ""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return ""
