"""Requests as image builders send them, for tests that need one and do not care."""

from __future__ import annotations

from imgbuilder.pb.contentservice import EmptyInitializer, WorkspaceInitializer
from imgbuilder.pb.wsman import (
    IdeImage,
    StartWorkspaceRequest,
    StartWorkspaceSpec,
    WorkspaceMetadata,
    WorkspaceType,
)


def start_request(
    workspace_id: str,
    *,
    ref: str = "registry.test/workspace-images:1",
    base_ref: str = "registry.test/base-images:1",
    owner: str = "somebody",
    managed_by: str = "image-builder",
) -> StartWorkspaceRequest:
    """A request that starts the workspace of a build."""
    return StartWorkspaceRequest(
        id=workspace_id,
        service_prefix=workspace_id,
        metadata=WorkspaceMetadata(
            owner=owner,
            meta_id=workspace_id,
            annotations={"ref": ref, "baseref": base_ref, "managed-by": managed_by},
        ),
        spec=StartWorkspaceSpec(
            workspace_image="registry.test/builder:1",
            ide_image=IdeImage(web_ref="registry.test/builder:1"),
            initializer=WorkspaceInitializer(empty=EmptyInitializer()),
            timeout="1h0m0s",
        ),
        type=WorkspaceType.IMAGEBUILD,
    )
