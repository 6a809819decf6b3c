"""The files that a configuration names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from imgbuilder.config import ConfigError, load

Written = Callable[..., str]


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an authority, a certificate with its key, and another key."""
    folder = tmp_path_factory.mktemp("pems")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.crt"))
    certificate = authority.issue_cert("ws-manager")
    certificate.cert_chain_pems[0].write_to_path(str(folder / "tls.crt"))
    certificate.private_key_pem.write_to_path(str(folder / "tls.key"))
    authority.issue_cert("other").private_key_pem.write_to_path(str(folder / "other.key"))
    return folder


def test_tls_files_that_fit_are_accepted(written: Written, pems: Path) -> None:
    """For both sides: to the workspace manager and to clients."""
    ca, crt, key = str(pems / "ca.crt"), str(pems / "tls.crt"), str(pems / "tls.key")
    config = load(
        written(
            {
                "orchestrator.wsman.tls": {"ca": ca, "crt": crt, "key": key},
                "server.services.grpc.tls": {
                    "caPath": ca,
                    "certPath": crt,
                    "keyPath": key,
                    "requireClientCert": True,
                },
            }
        )
    ).config
    assert config.orchestrator.wsman.tls.enabled
    assert config.server.services.grpc.tls.enabled


@pytest.mark.parametrize(
    ("name", "replacement", "fault"),
    [
        ("ca", "none.crt", "cannot be read: No such file or directory"),
        ("crt", "none.crt", "cannot be read: No such file or directory"),
        ("key", "none.key", "cannot be read: No such file or directory"),
        ("ca", "tls.key", "is not a certificate in PEM"),
        ("crt", "tls.key", "is not a certificate in PEM"),
        ("key", "tls.crt", "is not a private key in PEM, or is encrypted"),
        ("key", "other.key", "is not the key of {crt}"),
    ],
)
def test_tls_files_that_do_not_fit_are_named(
    written: Written, pems: Path, name: str, replacement: str, fault: str
) -> None:
    """The message names the setting and the file."""
    names = {"ca": "ca.crt", "crt": "tls.crt", "key": "tls.key"} | {name: replacement}
    files = {setting: str(pems / file) for setting, file in names.items()}
    path = written({"orchestrator.wsman.tls": files})
    with pytest.raises(ConfigError) as info:
        load(path)
    expected = f"{path}: orchestrator.wsman.tls.{name}: {files[name]}: {fault.format(**files)}"
    assert str(info.value) == expected
    path = written(
        {
            "server.services.grpc.tls": {
                "caPath": files["ca"],
                "certPath": files["crt"],
                "keyPath": files["key"],
            }
        }
    )
    with pytest.raises(ConfigError) as info:
        load(path)
    setting = {"ca": "caPath", "crt": "certPath", "key": "keyPath"}[name]
    assert f"server.services.grpc.tls.{setting}: {files[name]}: " in str(info.value)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('{"auths": {"a": {"auth": "c2VzYW1lOm9wZW4="}', "is not JSON"),
        ("[]", "must be a JSON object, as Docker's config.json is"),
    ],
)
def test_a_pull_secret_that_is_none_is_named_and_not_shown(
    written: Written, tmp_path: Path, text: str, fault: str
) -> None:
    """What stands in the file is in no message."""
    secret = tmp_path / "pull-secret.json"
    secret.write_text(text)
    with pytest.raises(ConfigError) as info:
        load(written({"orchestrator.pullSecretFile": str(secret)}))
    assert str(info.value).endswith(f"orchestrator.pullSecretFile: {secret}: {fault}")


def test_relative_paths_count_from_the_working_directory(
    written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not from the folder of the configuration."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "secret.json").write_text("{}")
    path = written({"orchestrator.pullSecretFile": "secret.json"})
    monkeypatch.chdir(folder)
    assert load(path).config.orchestrator.pull_secret_file == "secret.json"
