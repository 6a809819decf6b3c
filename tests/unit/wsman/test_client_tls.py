"""Connections to the workspace manager with certificates on both sides."""

from __future__ import annotations

import ssl
from pathlib import Path

import anyio
import pytest

from imgbuilder.runtime.tls import client_context, server_context
from imgbuilder.wsman.client import WorkspaceManagerClient
from imgbuilder.wsman.errors import (
    WorkspaceManagerUnavailableError,
)
from tests.world.certificates import WORKSPACE_MANAGER, Authority
from tests.world.proxy import TcpProxy
from tests.world.requests import start_request
from tests.world.workspaces import WorkspaceManager


async def test_both_sides_show_certificates(tmp_path: Path) -> None:
    """Calls and subscriptions work when each side trusts the other, whatever the address is."""
    authority = Authority(tmp_path)
    context = server_context(authority.files(WORKSPACE_MANAGER), require_client_certificate=True)
    async with (
        WorkspaceManager(tls=context) as manager,
        WorkspaceManagerClient(manager.address, tls=_tls(authority)) as client,
        client.subscribe() as changes,
    ):
        await client.start(start_request("one"))
        assert (await anext(changes)).build_id == "one"


async def test_a_frozen_network_is_noticed(tmp_path: Path) -> None:
    """TLS does not wait for a peer's farewell when it is dead."""
    authority = Authority(tmp_path)
    async with (
        WorkspaceManager(tls=server_context(authority.files(WORKSPACE_MANAGER))) as manager,
        TcpProxy(manager.port) as proxy,
        WorkspaceManagerClient(f"127.0.0.1:{proxy.port}", tls=_tls(authority), keepalive=0.1) as client,
        client.subscribe() as changes,
    ):
        proxy.freeze()
        with anyio.fail_after(20), pytest.raises(WorkspaceManagerUnavailableError):
            await anext(changes)


async def test_another_name_is_refused(tmp_path: Path) -> None:
    """A server that is not called ws-manager gets no request."""
    authority = Authority(tmp_path)
    context = server_context(authority.files("127.0.0.1"))
    async with (
        WorkspaceManager(tls=context) as manager,
        WorkspaceManagerClient(manager.address, tls=_tls(authority)) as client,
    ):
        with pytest.raises(WorkspaceManagerUnavailableError, match="certificate"):
            await client.list()
        assert not manager.calls


async def test_a_client_that_is_not_trusted(tmp_path: Path) -> None:
    """A client whose certificate is refused sees unavailability."""
    authority, other = Authority(tmp_path), Authority(tmp_path, name="other")
    context = server_context(authority.files(WORKSPACE_MANAGER), require_client_certificate=True)
    tls = client_context(authority.files("client", issuer=other))
    async with (
        WorkspaceManager(tls=context) as manager,
        WorkspaceManagerClient(manager.address, tls=tls) as client,
    ):
        for _ in range(3):
            with pytest.raises(WorkspaceManagerUnavailableError):
                await client.list()


async def test_plaintext_where_tls_is_wanted(manager: WorkspaceManager, tmp_path: Path) -> None:
    """A server without TLS is unavailable to a client with it."""
    async with WorkspaceManagerClient(manager.address, tls=_tls(Authority(tmp_path))) as client:
        with pytest.raises(WorkspaceManagerUnavailableError):
            await client.list()


def _tls(authority: Authority) -> ssl.SSLContext:
    return client_context(authority.files("image-builder"))
