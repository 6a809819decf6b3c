"""The Build use case: tell that the image exists, attach to its build, or start one."""

from __future__ import annotations

from typing import Protocol

import structlog

from imgbuilder.core import naming
from imgbuilder.core.builds import Build
from imgbuilder.core.errors import ImgbuilderError, InvalidInputError
from imgbuilder.core.permissions import ECR_STAND_IN, Credentials, Permissions, workspace_auth
from imgbuilder.core.references import parse_reference
from imgbuilder.core.secrets import Secret
from imgbuilder.core.sources import DockerfileSource, ReferenceSource, Source, source_of
from imgbuilder.core.workspace import BuildPlan
from imgbuilder.orchestrator.errors import BaseImageUnresolvedError
from imgbuilder.orchestrator.launching import Launcher
from imgbuilder.orchestrator.resolving import Resolver, WorkspaceImage
from imgbuilder.orchestrator.tracker import Tracker
from imgbuilder.pb.builder import BuildRequest

log = structlog.get_logger(__name__)


class OwnCredentials(Protocol):
    """Where the service's own credentials are."""

    async def credentials(self, registry: str) -> Credentials | None:
        """Those for *registry*; None if there are none.

        :raises RegistryError: if they can't be had.
        """
        ...


class Builder:
    """Brings workspace images about."""

    def __init__(
        self,
        *,
        resolver: Resolver,
        tracker: Tracker,
        launcher: Launcher,
        own_credentials: OwnCredentials,
    ) -> None:
        self._resolver = resolver
        self._tracker = tracker
        self._launcher = launcher
        self._own_credentials = own_credentials

    async def build(self, request: BuildRequest) -> WorkspaceImage | Build:
        """The image, if it exists and need not be built; otherwise the build that makes it, as it stands.

        Cancelling it stops no build.

        :raises BuildSourceMissingError: if the request names no source.
        :raises InvalidInputError: if something in it can't be used.
        :raises UnsupportedInitializerError: if its source is no git repository.
        :raises BaseImageUnresolvedError: if the image it starts from can't be resolved.
        :raises WorkspaceImageUncheckedError: if it can't be told whether the image exists.
        :raises BuildNotStartedError: if the workspace manager gives no workspace.
        """
        ends = self._tracker.ends()
        source = source_of(request.source)
        permissions = self._resolver.permissions(request.auth)
        known: WorkspaceImage | None = None
        if request.base_image_name_resolved and not request.force_rebuild:
            known, source, permissions = await self._named(request, source, permissions)
            if known.exists:
                return known
        image = await self._image(request, source, permissions, known)
        if image.exists:
            return image
        if not request.force_rebuild:
            done = self._tracker.succeeded_since(image.ref, ends)
            if done is not None:
                return done
        plan = await self._plan(request, source, permissions, image)
        return await self._launcher.attach_or_start(plan, forced=request.force_rebuild)

    async def _named(
        self,
        request: BuildRequest,
        source: Source,
        permissions: Permissions,
    ) -> tuple[WorkspaceImage, Source, Permissions]:
        """Take the image that the request says its source was resolved to before, if it is still there."""
        name = request.base_image_name_resolved
        naming.refuse_control_characters("base_image_name_resolved", name)
        if request.auth is not None and request.auth.selective is not None:
            permissions = permissions.with_registry(self._resolver.repositories.base_registry)
        retry = request.use_retry_client
        ref = self._resolver.workspace_ref(name)
        exists = await self._resolver.is_built(ref, retry=retry)
        image = WorkspaceImage(ref=ref, base_ref=name, exists=exists)
        if not exists:
            try:
                resolved = await self._resolver.resolve(
                    "base_image_name_resolved", name, permissions, retry=retry
                )
            except (BaseImageUnresolvedError, InvalidInputError) as error:
                log.info("the resolved name of the base image is of no use", reason=str(error))
            else:
                source = ReferenceSource(resolved)
        return image, source, permissions

    async def _image(
        self,
        request: BuildRequest,
        source: Source,
        permissions: Permissions,
        known: WorkspaceImage | None,
    ) -> WorkspaceImage:
        """The workspace image of *source*, looked up unless it has to be built anyway or is *known* to be missing."""
        retry = request.use_retry_client
        base_ref = await self._resolver.base_ref(source, permissions, retry=retry)
        ref = self._resolver.workspace_ref(base_ref)
        missing = request.force_rebuild or (known is not None and known.ref == ref)
        exists = False if missing else await self._resolver.is_built(ref, retry=retry)
        return WorkspaceImage(ref=ref, base_ref=base_ref, exists=exists)

    async def _plan(
        self,
        request: BuildRequest,
        source: Source,
        permissions: Permissions,
        image: WorkspaceImage,
    ) -> BuildPlan:
        dockerfile = source.file if isinstance(source, DockerfileSource) else None
        return BuildPlan(
            ref=image.ref,
            base_ref=image.base_ref,
            paths=naming.paths_of(dockerfile) if dockerfile else naming.paths_of_a_reference(),
            initializer=dockerfile.source if dockerfile else None,
            additional_auth=Secret(await self._additional_auth(permissions, image.base_ref)),
            triggered_by=request.triggered_by,
            supervisor_ref=request.supervisor_ref,
        )

    async def _additional_auth(self, permissions: Permissions, base_ref: str) -> str:
        """What the build workspace gets beside the pull secret: the request's, and the service's for the base."""
        own: dict[str, Credentials] = {}
        for registry in (parse_reference(base_ref).domain, ECR_STAND_IN):
            try:
                credentials = await self._own_credentials.credentials(registry)
            except ImgbuilderError as error:
                log.warning("build goes on without credentials", registry=registry, reason=str(error))
                continue
            if credentials is not None:
                own[registry] = credentials
        return workspace_auth(
            permissions.additional,
            workspace_registry=self._resolver.repositories.workspace_registry,
            own=own,
        )
