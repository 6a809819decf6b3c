"""Certificates out of a secret: which are taken, and what becomes of the files."""

from __future__ import annotations

import stat
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from imgbuilder.kube.errors import SecretContentError, TlsFilesError
from imgbuilder.kube.tlsfiles import ClientTls, files_in, write
from imgbuilder.runtime.tls import TlsFiles, client_context
from tests.world.certificates import Authority
from tests.world.kube import client_secret


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ClientTls:
    """What fits together."""
    return issued(tmp_path_factory.mktemp("authority"))


def issued(folder: Path) -> ClientTls:
    """What an authority of its own has issued."""
    secret = client_secret(Authority(folder))
    return ClientTls(
        secret="secret-1", ca=secret["ca.crt"], certificate=secret["tls.crt"], key=secret["tls.key"]
    )


def mode(path: str | Path) -> int:
    """Who may do what with a file."""
    return stat.S_IMODE(Path(path).stat().st_mode)


def test_files_are_for_their_owner_only(tls: ClientTls, tmp_path: Path) -> None:
    """And so is the folder that is made for them; they can be used, and nothing else is there."""
    files = files_in(tmp_path / "deep" / "wsman-tls")
    write(tls, files)
    assert [mode(path) for path in (files.ca, files.certificate, files.key)] == [0o600] * 3
    assert mode(tmp_path / "deep" / "wsman-tls") == 0o700
    assert sorted(path.name for path in (tmp_path / "deep" / "wsman-tls").iterdir()) == [
        "ca.crt",
        "tls.crt",
        "tls.key",
    ]
    client_context(files)


def test_files_are_replaced(tls: ClientTls, tmp_path: Path) -> None:
    """Whoever may read the old ones. A folder that is there stays as it is."""
    files = files_in(tmp_path)
    tmp_path.chmod(0o755)
    Path(files.key).write_text("old")
    Path(files.key).chmod(0o644)
    write(tls, files)
    assert Path(files.key).read_bytes() == tls.key
    assert mode(files.key) == 0o600
    assert mode(tmp_path) == 0o755


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ca": b"no PEM"}, "ca.crt is not a certificate in PEM"),
        ({"certificate": b"no PEM"}, "tls.crt is not a certificate in PEM"),
        ({"key": b"no PEM"}, "tls.key is not a private key in PEM, or is encrypted"),
        ({"key": None}, "tls.key is not the key of tls.crt"),
    ],
)
def test_what_does_not_fit_changes_nothing(
    changes: dict[str, bytes | None], words: str, tls: ClientTls, tmp_path: Path
) -> None:
    """The error names the key of the secret; files that are there stay."""
    other = issued(tmp_path)
    files = files_in(tmp_path / "out")
    write(tls, files)
    parts: dict[str, Any] = {name: value or getattr(other, name) for name, value in changes.items()}
    wrong = replace(tls, **parts)
    with pytest.raises(SecretContentError) as caught:
        write(wrong, files)
    assert str(caught.value) == f"secret secret-1: {words}"
    assert Path(files.key).read_bytes() == tls.key
    assert len(list((tmp_path / "out").iterdir())) == 3


def test_each_file_may_have_a_folder_of_its_own(tls: ClientTls, tmp_path: Path) -> None:
    """Made if it is not there; in each, nothing else is left, also of what does not fit."""
    files = TlsFiles(
        ca=str(tmp_path / "ca" / "ca.pem"),
        certificate=str(tmp_path / "certificate" / "client.pem"),
        key=str(tmp_path / "key" / "client.key"),
    )
    write(tls, files)
    with pytest.raises(SecretContentError):
        write(replace(tls, key=b"no PEM"), files)
    client_context(files)
    assert mode(tmp_path / "key") == 0o700
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()) == [
        "ca/ca.pem",
        "certificate/client.pem",
        "key/client.key",
    ]
    assert len(list(tmp_path.rglob("*"))) == 6


def test_the_file_system_may_change_between_folders(tls: ClientTls, tmp_path: Path) -> None:
    """As with a folder for keys in memory."""
    memory = Path("/dev/shm")  # it is another file system; the folder in it is ours alone
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system")
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        files = replace(files_in(tmp_path), key=str(Path(folder, "tls.key")))
        write(tls, files)
        client_context(files)


def test_the_folder_that_can_not_be_made_is_named(tls: ClientTls, tmp_path: Path) -> None:
    """Whichever of them it is; nothing is written anywhere."""
    (tmp_path / "file").touch()
    files = replace(files_in(tmp_path / "out"), key=str(tmp_path / "file" / "keys" / "tls.key"))
    with pytest.raises(
        TlsFilesError, match=f"cannot write certificates to {tmp_path}/file/keys: Not a directory"
    ):
        write(tls, files)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_that_can_not_be_written_to(tls: ClientTls, tmp_path: Path) -> None:
    """Is named."""
    (tmp_path / "file").touch()
    with pytest.raises(TlsFilesError, match=f"cannot write certificates to {tmp_path}/file: File exists"):
        write(tls, files_in(tmp_path / "file"))


def test_contents_are_not_shown(tls: ClientTls) -> None:
    """By nothing that is logged or raised."""
    assert repr(tls) == "ClientTls(secret='secret-1')"
