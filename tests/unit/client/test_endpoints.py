"""Where an image builder is, as users write it."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from imgbuilder.client.endpoints import client_tls, parse_host
from imgbuilder.client.errors import InvalidOptionError
from tests.world.certificates import Authority


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("localhost:1", "localhost:1"),
        ("builder.test", "builder.test:8080"),
        ("10.0.0.1", "10.0.0.1:8080"),
        (":9", "localhost:9"),
        ("[::1]:9", "[::1]:9"),
        ("[::1]", "[::1]:8080"),
        ("::1", "[::1]:8080"),
    ],
)
def test_hosts(text: str, address: str) -> None:
    """The port is 8080 where none is given."""
    assert str(parse_host(text)) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a b",
        "host:0",
        "host:65536",
        "host:port",
        "https://me:hunter2@host:80",
        "dns:///host:80",
        "me:x@host:1",
    ],
)
def test_what_is_no_host(text: str) -> None:
    """One line, without a password of an address."""
    with pytest.raises(InvalidOptionError) as caught:
        parse_host(text)
    assert str(caught.value).startswith("--host: ")
    assert "hunter2" not in str(caught.value)


def test_tls_with_and_without_a_certificate_of_ours(tmp_path: Path) -> None:
    """HTTP/2 is offered, and the server is checked, in both cases."""
    files = Authority(tmp_path).files("client.test")
    for certificate, key in ((files.certificate, files.key), ("", "")):
        context = client_tls(ca=files.ca, certificate=certificate, key=key)
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.check_hostname
        assert len(context.get_ca_certs()) == 1


def test_files_that_can_not_be_used(tmp_path: Path) -> None:
    """The option is named, and the file."""
    files = Authority(tmp_path).files("client.test")
    text = tmp_path / "text"
    text.write_text("text")
    cases = [
        ((str(text), "", ""), f"--tls-ca: {text}: is not a certificate in PEM"),
        (("/no/such", "", ""), "--tls-ca: /no/such: cannot be read: No such file or directory"),
        ((files.ca, files.certificate, ""), "--tls-cert, --tls-key: give both of them, or none"),
        ((files.ca, str(text), files.key), f"--tls-cert: {text}: is not a certificate in PEM"),
        (
            (files.ca, files.certificate, str(text)),
            f"--tls-key: {text}: is not a private key in PEM, or is encrypted",
        ),
    ]
    for (ca, certificate, key), fault in cases:
        with pytest.raises(InvalidOptionError) as caught:
            client_tls(ca=ca, certificate=certificate, key=key)
        assert str(caught.value) == fault
