"""TLS on both sides: to clients, with and without certificates of theirs, and to the workspace manager."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
from grpclib.exceptions import StreamTerminatedError

from imgbuilder.runtime.tls import TlsFiles, server_context
from tests.contract.service.client import Client, connected, dockerfile, statuses
from tests.contract.service.conftest import serving, unobserved
from tests.world.certificates import WORKSPACE_MANAGER, Authority
from tests.world.workspaces import WorkspaceManager
from tests.world.world import World

NAME = "image-builder.test"


def server_tls(files: TlsFiles, **settings: Any) -> dict[str, Any]:
    """The section of the configuration that turns TLS on."""
    tls = {"certPath": files.certificate, "keyPath": files.key, **settings}
    return {"services": {"grpc": {"tls": tls}}}


def trusting(authority: Authority, files: TlsFiles | None = None) -> dict[str, Any]:
    """Options of a client that trusts *authority*, and shows the certificate in *files*."""
    context = ssl.create_default_context(cafile=str(authority.ca))
    context.set_alpn_protocols(["h2"])
    if files is not None:
        context.load_cert_chain(files.certificate, files.key)
    return {"tls": context, "server_name": NAME}


async def test_without_client_certificates(world: World, authority: Authority) -> None:
    """A build over TLS; plaintext is not spoken on that port."""
    config = unobserved(world, server=server_tls(authority.files(NAME)))
    async with serving(config, client=trusting(authority)) as served:
        assert statuses(await served.client.build(dockerfile()))[-1] == "done_success"
        async with connected(served.running.address.port) as plain:
            assert await refused(plain)


async def test_a_client_certificate_is_checked_if_offered(
    world: World, authority: Authority, tmp_path: Path
) -> None:
    """Nobody needs one; one of somebody unknown is refused."""
    stranger = Authority(tmp_path, name="stranger")
    config = unobserved(world, server=server_tls(authority.files(NAME), caPath=str(authority.ca)))
    async with serving(config, client=trusting(authority)) as served:
        assert await served.client.builds() == []
        port = served.running.address.port
        async with connected(port, **trusting(authority, authority.files("client"))) as known:
            assert await known.builds() == []
        async with connected(port, **trusting(authority, stranger.files("client"))) as unknown:
            assert await refused(unknown)


async def test_a_client_certificate_is_required_if_so_configured(world: World, authority: Authority) -> None:
    """Then nobody is served without."""
    tls = server_tls(authority.files(NAME), caPath=str(authority.ca), requireClientCert=True)
    config = unobserved(world, server=tls)
    async with serving(config, client=trusting(authority, authority.files("client"))) as served:
        assert await served.client.builds() == []
        async with connected(served.running.address.port, **trusting(authority)) as anonymous:
            assert await refused(anonymous)


async def test_tls_to_the_workspace_manager(authority: Authority) -> None:
    """Both sides show certificates; the workspace manager's is for the name that is agreed on."""
    manager = WorkspaceManager(
        tls=server_context(authority.files(WORKSPACE_MANAGER), require_client_certificate=True)
    )
    files = authority.files("client")
    tls = {"ca": files.ca, "crt": files.certificate, "key": files.key}
    async with (
        World(manager=manager) as world,
        serving(unobserved(world, orchestrator={"wsman": {"tls": tls}})) as served,
    ):
        assert statuses(await served.client.build(dockerfile()))[-1] == "done_success"
    assert {call.method for call in manager.calls} >= {"StartWorkspace", "Subscribe", "GetWorkspaces"}


async def refused(client: Client) -> bool:
    """Whether a client is not served."""
    with pytest.raises((StreamTerminatedError, OSError)):
        await client.builds()
    return True
