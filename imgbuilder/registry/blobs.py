"""One blob into a repository: nothing if it is there, a mount if a neighbour has it, else a transfer.

What is transferred is verified on the way: its last piece is held back until everything fits its digest, so
that no registry ever takes what does not.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlencode

import anyio
import httpx

from imgbuilder.core.contents import Blob
from imgbuilder.core.secrets import Secret
from imgbuilder.registry.access import Access
from imgbuilder.registry.answers import check, refusal
from imgbuilder.registry.errors import ManifestUnknownError, RegistryError, RegistryFaultError
from imgbuilder.registry.http import Answer, origin_of, parse_address
from imgbuilder.registry.session import RegistrySession, Repository
from imgbuilder.registry.transfers import PIECE, Download

CREATED: Final = 201
ACCEPTED: Final = 202


class Way(enum.Enum):
    """How a blob got where it is."""

    THERE = "already there"
    MOUNTED = "mounted"
    SENT = "sent"


@dataclass(frozen=True, slots=True)
class BlobDone:
    """A blob is in its repository now."""

    blob: Blob
    way: Way


Progress = Callable[[BlobDone], None]
"""Told of each blob. Must not block or raise."""


class Source(Protocol):
    """Where blobs come from.

    :ivar repository: the repository that they are in, if they are in one.
    """

    repository: Repository | None

    def open(self, blob: Blob) -> AbstractAsyncContextManager[AsyncIterable[bytes]]:
        """The contents of *blob*, piece by piece; not verified. May be opened more than once.

        :raises RegistryError: if they can't be had from a registry.
        :raises OSError: if they can't be had from the disk.
        """
        ...


class RepositorySource:
    """Blobs of a repository."""

    def __init__(self, session: RegistrySession, repository: Repository) -> None:
        self._session = session
        self.repository: Repository | None = repository
        self._from = repository

    @asynccontextmanager
    async def open(self, blob: Blob) -> AsyncIterator[AsyncIterable[bytes]]:
        """The contents of *blob*."""
        access = self._from.reading()
        path = _blob_path(self._from, blob)
        authorization = await self._session.client.authorization(access)
        async with self._download(access, path, authorization) as found:
            if isinstance(found, Download):
                yield found
                return
        if found.status != 401:
            raise _refusal(self._session, self._from, found)
        # Nobody asked this registry yet, or its token has expired: a small request finds the way in.
        answer = await self._session.client.request(access, "HEAD", path)
        check(self._from.registry, answer, self._session.retrying)
        authorization = await self._session.client.authorization(access)
        async with self._download(access, path, authorization) as found:
            if not isinstance(found, Download):
                raise _refusal(self._session, self._from, found)
            yield found

    def _download(
        self,
        access: Access,
        path: str,
        authorization: Secret,
    ) -> AbstractAsyncContextManager[Download | Answer]:
        url = access.endpoint.url(path)
        return self._session.transfers.download(access.registry, url, authorization)


class FileSource:
    """Blobs on disk.

    :param locate: where the blob of a digest is.
    """

    repository: Repository | None = None

    def __init__(self, locate: Callable[[str], Path]) -> None:
        self._locate = locate

    @asynccontextmanager
    async def open(self, blob: Blob) -> AsyncIterator[AsyncIterable[bytes]]:
        """The contents of *blob*."""
        async with (
            await anyio.open_file(self._locate(blob.digest), "rb") as file,
            aclosing(_pieces(file)) as pieces,
        ):
            yield pieces


class BlobWriter:
    """Puts blobs into one repository."""

    def __init__(self, session: RegistrySession, target: Repository, source: Source) -> None:
        self._session = session
        self._target = target
        self._source = source
        self._neighbour = _neighbour(source.repository, target)
        self._access = target.writing(beside=self._neighbour)

    async def ensure(self, blob: Blob) -> Way:
        """Have *blob* in the repository; how it got there.

        :raises RegistryError: if that can't be done, also if the source's contents do not fit the digest.
        :raises OSError: if the source is the disk, which can't be read.
        """
        answer = await self._session.client.request(self._access, "HEAD", _blob_path(self._target, blob))
        if answer.status == 200:
            return Way.THERE
        if answer.status != 404:
            raise _refusal(self._session, self._target, answer)
        way = [Way.SENT]
        send = partial(self._mount_or_send, blob, way)
        answer = await self._session.retrying.run(self._target.registry, send, retry=True)
        if answer.status != CREATED:
            raise _refusal(self._session, self._target, answer)
        return way[0]

    async def _mount_or_send(self, blob: Blob, way: list[Way]) -> Answer:
        """One attempt, from the beginning of an upload on; the registry's last answer."""
        path = f"{self._target.path}/blobs/uploads/"
        if self._neighbour is not None:
            path += f"?{urlencode({'mount': blob.digest, 'from': self._neighbour.path})}"
        begun = await self._session.client.request(self._access, "POST", path, content=b"")
        if begun.status == CREATED:
            way[0] = Way.MOUNTED
            return begun
        if begun.status != ACCEPTED:
            return begun
        address = self._upload_address(begun).copy_merge_params({"digest": blob.digest})
        authorization = await self._authorization_at(address)
        async with (
            self._source.open(blob) as pieces,
            aclosing(_verified(self._blame, blob, pieces)) as body,
        ):
            return await self._session.transfers.upload(
                self._target.registry,
                address,
                authorization,
                body=body,
                size=blob.size,
            )

    def _upload_address(self, begun: Answer) -> httpx.URL:
        registry = self._target.registry
        base = parse_address(registry, self._target.endpoint.url(""))
        address = parse_address(registry, begun.headers.get("location", ""), seen_from=base)
        if not self._session.allows(str(address), beside=str(base)):
            raise RegistryFaultError(registry, "wants the upload sent to where no request may go")
        return address

    async def _authorization_at(self, address: httpx.URL) -> Secret:
        """What to show at *address*: nothing if the registry keeps its uploads elsewhere."""
        if origin_of(address) != origin_of(httpx.URL(self._target.endpoint.base)):
            return Secret("")
        return await self._session.client.authorization(self._access)

    @property
    def _blame(self) -> str:
        return (self._source.repository or self._target).registry


def _neighbour(source: Repository | None, target: Repository) -> Repository | None:
    """*source* if *target* can mount its blobs."""
    if source is None or source.endpoint != target.endpoint or source.path == target.path:
        return None
    return source


def _blob_path(repository: Repository, blob: Blob) -> str:
    return f"{repository.path}/blobs/{blob.digest}"


async def _pieces(file: anyio.AsyncFile[bytes]) -> AsyncGenerator[bytes, None]:
    while piece := await file.read(PIECE):
        yield piece


async def _verified(registry: str, blob: Blob, pieces: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
    """*pieces*, the last of them only if all together are *blob*."""
    hashed: Any = hashlib.new(blob.digest.partition(":")[0])
    size, held = 0, b""
    async for piece in pieces:
        hashed.update(piece)
        size += len(piece)
        if size > blob.size:
            break
        if held:
            yield held
        held = piece
    if size != blob.size or hashed.hexdigest() != blob.digest.partition(":")[2]:
        raise RegistryFaultError(registry, f"the contents of {blob.digest} do not match their digest")
    if held:
        yield held


def _refusal(session: RegistrySession, repository: Repository, answer: Answer) -> RegistryError:
    """The error that *answer*, which is not the one that was wanted, means for a blob or its upload."""
    error = refusal(repository.registry, answer, session.retrying)
    if isinstance(error, ManifestUnknownError):
        return RegistryFaultError(repository.registry, f"does not have all that {repository.path} should")
    return error
