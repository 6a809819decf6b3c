"""Which images a source is about: the base image, the workspace image, and whether that exists."""

from __future__ import annotations

from dataclasses import dataclass

from imgbuilder.core import naming
from imgbuilder.core.errors import InvalidInputError
from imgbuilder.core.manifests import NoManifestForPlatformError
from imgbuilder.core.permissions import Permissions, check_additional, permissions_of
from imgbuilder.core.references import InvalidReferenceError, Reference, parse_reference
from imgbuilder.core.sources import ReferenceSource, Source, source_of
from imgbuilder.orchestrator.errors import BaseImageUnresolvedError, WorkspaceImageUncheckedError
from imgbuilder.orchestrator.ports import Images
from imgbuilder.orchestrator.refcache import RefCache
from imgbuilder.pb.builder import BuildRegistryAuth, ResolveBaseImageRequest, ResolveWorkspaceImageRequest
from imgbuilder.registry.errors import RegistryError


@dataclass(frozen=True, slots=True, kw_only=True)
class Repositories:
    """Where the images that are built are kept: repositories in normal form, without tag."""

    base: str
    workspace: str

    @property
    def base_registry(self) -> str:
        """The registry of the base images."""
        return parse_reference(self.base).domain

    @property
    def workspace_registry(self) -> str:
        """The registry of the workspace images."""
        return parse_reference(self.workspace).domain


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkspaceImage:
    """The workspace image of a source."""

    ref: str
    base_ref: str
    exists: bool


class Resolver:
    """Resolves sources with the credentials that a request may use."""

    def __init__(self, *, images: Images, refcache: RefCache, repositories: Repositories) -> None:
        self._images = images
        self._refcache = refcache
        self.repositories = repositories

    async def resolve_base_image(self, request: ResolveBaseImageRequest) -> str:
        """The digest form of the image that *request* names.

        :raises InvalidInputError: if it names none, or brings credentials that can't be read.
        :raises BaseImageUnresolvedError: if it can't be resolved.
        """
        permissions = self.permissions(request.auth)
        check_additional(permissions.additional)
        return await self.resolve("ref", request.ref, permissions, retry=request.use_retry_client)

    async def resolve_workspace_image(self, request: ResolveWorkspaceImageRequest) -> WorkspaceImage:
        """The workspace image of the source that *request* names, and whether it exists.

        :raises BuildSourceMissingError: if it names none.
        :raises InvalidInputError: if something in it can't be used.
        :raises UnsupportedInitializerError: if it is no git repository.
        :raises BaseImageUnresolvedError: if the image it starts from can't be resolved.
        :raises WorkspaceImageUncheckedError: if it can't be told whether the image exists.
        """
        source = source_of(request.source)
        permissions = self.permissions(request.auth)
        check_additional(permissions.additional)
        base_ref = await self.base_ref(source, permissions, retry=request.use_retry_client)
        ref = self.workspace_ref(base_ref)
        return WorkspaceImage(
            ref=ref,
            base_ref=base_ref,
            exists=await self.is_built(ref, retry=request.use_retry_client),
        )

    def permissions(self, auth: BuildRegistryAuth | None) -> Permissions:
        """What a request with *auth* may use."""
        return permissions_of(
            auth,
            base_registry=self.repositories.base_registry,
            workspace_registry=self.repositories.workspace_registry,
        )

    async def base_ref(self, source: Source, permissions: Permissions, *, retry: bool) -> str:
        """The base image of *source*: resolved if it is a reference, named after the source otherwise."""
        if isinstance(source, ReferenceSource):
            return await self.resolve("source.ref.ref", source.ref, permissions, retry=retry)
        ref = naming.base_image_ref(source.file, repository=self.repositories.base)
        naming.paths_of(source.file)  # refuses paths that leave the workspace
        return ref

    def workspace_ref(self, base_ref: str) -> str:
        """The workspace image made from *base_ref*."""
        return naming.workspace_image_ref(base_ref, repository=self.repositories.workspace)

    async def resolve(self, field: str, ref: str, permissions: Permissions, *, retry: bool) -> str:
        """The digest form of *ref*, which stands in *field* of a request."""
        kept = self._refcache.get(ref)
        if kept is not None:
            return kept
        reference = _parse(field, ref)
        try:
            resolved = await self._images.resolve(reference, permissions, retry=retry)
        except (RegistryError, NoManifestForPlatformError) as error:
            raise BaseImageUnresolvedError(error) from error
        return str(resolved)

    async def is_built(self, ref: str, *, retry: bool) -> bool:
        """Whether the workspace image *ref* exists, looked up with the service's own credentials."""
        try:
            return await self._images.exists(parse_reference(ref), Permissions.everything(), retry=retry)
        except RegistryError as error:
            raise WorkspaceImageUncheckedError(error) from error


def _parse(field: str, ref: str) -> Reference:
    try:
        return parse_reference(ref)
    except InvalidReferenceError as error:
        raise InvalidInputError(field, str(error)) from error
