# ruff: noqa: ASYNC240  # files are changed while the event loop runs: that is what is tested
"""TLS contexts: what they accept, and that they follow the files they were made of."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import anyio
import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.x509 import load_der_x509_certificate, load_pem_x509_certificate
from structlog.testing import capture_logs

from imgbuilder.runtime.tls import TlsFileError, TlsFiles, client_context, keep_fresh, server_context

SERVER_NAME = "ws-manager"


class Peers:
    """An authority, and files for both sides in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = trustme.CA()
        self.authority.cert_pem.write_to_path(str(folder / "ca.crt"))
        self.server = self.issue("server", SERVER_NAME)
        self.client = self.issue("client", "image-builder")

    def issue(self, side: str, name: str, authority: trustme.CA | None = None) -> TlsFiles:
        """Files with a new certificate, in the place of those that *side* had."""
        issued = (authority or self.authority).issue_cert(name)
        certificate, key = self.folder / f"{side}.crt", self.folder / f"{side}.key"
        issued.cert_chain_pems[0].write_to_path(str(certificate))
        issued.private_key_pem.write_to_path(str(key))
        return TlsFiles(certificate=str(certificate), key=str(key), ca=str(self.folder / "ca.crt"))


@pytest.fixture
def peers(tmp_path: Path) -> Peers:
    """Files in a folder of the test's own."""
    return Peers(tmp_path)


def shake_hands(
    server: ssl.SSLContext, client: ssl.SSLContext, name: str = SERVER_NAME
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """A handshake in memory: the server's and the client's end. Raises what either side raises."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        server.wrap_bio(to_server, to_client, server_side=True),
        client.wrap_bio(to_client, to_server, server_hostname=name),
    )
    waiting = set(ends)
    for _ in range(10):
        for end in ends:
            try:
                end.do_handshake()
                waiting.discard(end)
            except ssl.SSLWantReadError:
                pass
        if not waiting:
            break
    assert not waiting
    return ends


def anonymous(peers: Peers) -> ssl.SSLContext:
    """A client without a certificate."""
    context = ssl.create_default_context(cafile=peers.server.ca)
    context.set_alpn_protocols(["h2"])
    return context


def shown_serial(client: ssl.SSLObject) -> int:
    """The serial number of the certificate that a server showed."""
    certificate = client.getpeercert(binary_form=True)
    assert certificate
    return load_der_x509_certificate(certificate).serial_number


def test_both_sides_speak_http2_and_know_each_other(peers: Peers) -> None:
    """The client checks the server's name, the server sees the client's certificate."""
    server, client = shake_hands(server_context(peers.server), client_context(peers.client))
    assert server.selected_alpn_protocol() == client.selected_alpn_protocol() == "h2"
    assert server.getpeercert()
    assert client.version() == "TLSv1.3"


def test_a_server_under_another_name_is_refused(peers: Peers) -> None:
    """The certificate must be of the name that was asked for."""
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        shake_hands(server_context(peers.server), client_context(peers.client), "other")


def test_tls_1_2_is_spoken_and_1_1_is_not(peers: Peers) -> None:
    """Older peers are served, too old ones are not."""
    old = client_context(peers.client)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    assert shake_hands(server_context(peers.server), old)[1].version() == "TLSv1.2"
    assert server_context(peers.server).minimum_version == ssl.TLSVersion.TLSv1_2
    assert client_context(peers.client).minimum_version == ssl.TLSVersion.TLSv1_2


def test_a_client_certificate_is_checked_if_offered(peers: Peers, tmp_path: Path) -> None:
    """None is fine, one of a stranger is not."""
    server = server_context(peers.server)
    shake_hands(server, anonymous(peers))
    folder = tmp_path / "stranger"
    folder.mkdir()
    stranger = Peers(folder).client
    context = anonymous(peers)
    context.load_cert_chain(stranger.certificate, stranger.key)
    with pytest.raises(ssl.SSLError, match=r"certificate verify failed|unknown ca"):
        shake_hands(server, context)


def test_a_client_certificate_is_required_if_so_configured(peers: Peers) -> None:
    """A client that shows none is not let in."""
    server = server_context(peers.server, require_client_certificate=True)
    shake_hands(server, client_context(peers.client))
    with pytest.raises(ssl.SSLError, match="peer did not return a certificate"):
        shake_hands(server, anonymous(peers))


def test_a_server_without_authorities_asks_for_no_certificate(peers: Peers) -> None:
    """Any client is let in, whatever it could show."""
    files = TlsFiles(certificate=peers.server.certificate, key=peers.server.key)
    server, _ = shake_hands(server_context(files), client_context(peers.client))
    assert server.getpeercert() is None


def test_a_client_without_authorities_trusts_the_systems(peers: Peers) -> None:
    """It does not trust anybody: ours is not among them."""
    files = TlsFiles(certificate=peers.client.certificate, key=peers.client.key)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(server_context(peers.server), client_context(files))


def test_an_encrypted_key_is_refused_without_asking(peers: Peers) -> None:
    """Nobody sits at the terminal to type a password."""
    key = serialization.load_pem_private_key(Path(peers.server.key).read_bytes(), None)
    Path(peers.server.key).write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"sesame"),
        )
    )
    with pytest.raises(TlsFileError, match="or is encrypted") as info:
        server_context(peers.server)
    assert (info.value.role, info.value.path) == ("key", peers.server.key)


@asynccontextmanager
async def kept_fresh(context: ssl.SSLContext, files: TlsFiles) -> AsyncIterator[None]:
    """Keeps *context* as *files* are, looking often."""
    async with anyio.create_task_group() as group:
        group.start_soon(partial(keep_fresh, [(context, files)], interval=0.005))
        yield
        group.cancel_scope.cancel()


async def until_shown(server: ssl.SSLContext, client: ssl.SSLContext, serial: int) -> None:
    """Returns when *server* shows *client* a certificate of this serial number."""
    with anyio.fail_after(10):
        while True:
            with suppress(ssl.SSLCertVerificationError):
                if shown_serial(shake_hands(server, client)[1]) == serial:
                    return
            await anyio.sleep(0.001)


def serial_in(path: str | Path) -> int:
    """The serial number of the certificate in a file."""
    return load_pem_x509_certificate(Path(path).read_bytes()).serial_number


async def test_certificates_that_are_replaced_are_used_for_new_connections(peers: Peers) -> None:
    """Neither the server nor its context is made anew."""
    server = server_context(peers.server)
    await until_shown(server, anonymous(peers), serial_in(peers.server.certificate))
    async with kept_fresh(server, peers.server):
        for _ in range(2):
            peers.issue("server", SERVER_NAME)
            await until_shown(server, anonymous(peers), serial_in(peers.server.certificate))


async def test_the_symlink_swap_of_kubernetes_is_noticed(peers: Peers, tmp_path: Path) -> None:
    """There the files are links into a folder that another one takes the place of, authorities and all."""
    for version in ("v1", "v2", "mount"):
        (tmp_path / version).mkdir()
    first, second = Peers(tmp_path / "v1"), Peers(tmp_path / "v2")
    mount = tmp_path / "mount"
    (mount / "..data").symlink_to("../v1")
    for name in ("server.crt", "server.key", "ca.crt"):
        (mount / name).symlink_to(f"..data/{name}")
    files = TlsFiles(
        certificate=str(mount / "server.crt"), key=str(mount / "server.key"), ca=str(mount / "ca.crt")
    )
    server = server_context(files)
    async with kept_fresh(server, files):
        await until_shown(server, anonymous(first), serial_in(first.server.certificate))
        (mount / "..new").symlink_to("../v2")
        (mount / "..new").replace(mount / "..data")
        await until_shown(server, anonymous(second), serial_in(second.server.certificate))
        shake_hands(server, client_context(second.client))


async def test_files_that_do_not_fit_leave_the_context_as_it_is(peers: Peers) -> None:
    """Halfway through a change the old certificate is shown; when the change is complete, the new one."""
    server = server_context(peers.server)
    certificate = Path(peers.server.certificate)
    first, old = serial_in(certificate), certificate.read_bytes()
    with capture_logs() as logs:
        async with kept_fresh(server, peers.server):
            peers.issue("server", SERVER_NAME)
            new = certificate.read_bytes()
            certificate.write_bytes(old)
            await until_shown(server, anonymous(peers), first)
            with anyio.fail_after(10):
                while not any(entry["event"] == "TLS files not loaded" for entry in logs):  # noqa: ASYNC110  # a log
                    await anyio.sleep(0.001)
            assert shown_serial(shake_hands(server, anonymous(peers))[1]) == first
            certificate.write_bytes(new)
            await until_shown(server, anonymous(peers), serial_in(certificate))
    faults = [entry["reason"] for entry in logs if entry["event"] == "TLS files not loaded"]
    assert f"is not the key of {certificate}" in faults
    assert len(faults) <= 5, "once for each state of the files, not for each look"
