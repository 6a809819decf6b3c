"""Which credentials go with a request."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from imgbuilder.client.credentials import auth_of
from imgbuilder.client.errors import InvalidOptionError
from imgbuilder.pb.builder import BuildRegistryAuth, BuildRegistryAuthSelective, BuildRegistryAuthTotal

LOGIN = base64.b64encode(b"me:hunter2").decode()


@pytest.mark.parametrize(
    ("grants", "expected"),
    [
        ([], None),
        (["all"], BuildRegistryAuth(total=BuildRegistryAuthTotal(allow_all=True))),
        (["all", "base"], BuildRegistryAuth(total=BuildRegistryAuthTotal(allow_all=True))),
        (["base"], BuildRegistryAuth(selective=BuildRegistryAuthSelective(allow_baserep=True))),
        (
            ["workspace", "ghcr.io", "localhost:5000"],
            BuildRegistryAuth(
                selective=BuildRegistryAuthSelective(
                    allow_workspacerep=True, any_of=["ghcr.io", "localhost:5000"]
                )
            ),
        ),
        (["ghcr.io=env:LOGIN"], BuildRegistryAuth(additional={"ghcr.io": LOGIN})),
    ],
)
def test_grants(grants: list[str], expected: BuildRegistryAuth | None) -> None:
    """The service's credentials, all or some, and our own."""
    assert auth_of(grants, environment={"LOGIN": "me:hunter2\n"}) == expected


def test_a_file_with_a_login(tmp_path: Path) -> None:
    """Beside what the service may use of its own."""
    file = tmp_path / "login"
    file.write_text("me:hunter2\n")
    auth = auth_of(["base", f"ghcr.io=file:{file}"])
    assert auth is not None
    assert auth.selective is not None
    assert auth.selective.allow_baserep
    assert auth.additional == {"ghcr.io": LOGIN}


def test_dockers_file(tmp_path: Path) -> None:
    """Every user with a password in it; hosts are spelled as references do."""
    file = tmp_path / "config.json"
    auths: dict[str, Any] = {
        "https://index.docker.io/v1/": {"auth": LOGIN},
        "ghcr.io": {"username": "me", "password": "hunter2"},
        "token.test": {"identitytoken": "secret"},
    }
    file.write_text(json.dumps({"auths": auths}))
    auth = auth_of([], file=str(file))
    assert auth is not None
    assert auth.additional == {"docker.io": LOGIN, "ghcr.io": LOGIN}


@pytest.mark.parametrize(
    ("grant", "fault"),
    [
        ("ghcr.io=me:hunter2", "--auth ghcr.io: give the credentials as env:VARIABLE or file:PATH"),
        ("ghcr.io=", "--auth ghcr.io: give the credentials as env:VARIABLE or file:PATH"),
        ("ghcr.io=env:NONE", "--auth ghcr.io: the variable NONE is not set"),
        ("ghcr.io=env:TOKEN", "--auth ghcr.io: env:TOKEN does not hold user:password"),
        ("ghcr.io=env:COLONS", "--auth ghcr.io: a password with a colon in it can't be sent"),
        ("ghcr.io=file:/no/such", "--auth ghcr.io: /no/such cannot be read: No such file or directory"),
        ("everything", "--auth: 'everything' is none of all, base, workspace, and no registry"),
        ("ghcr.io/image", "--auth: 'ghcr.io/image' is none of"),
        ("me:hunter2@ghcr.io", "--auth: '…' is none of"),
        ("", "--auth: '' is none of"),
    ],
)
def test_grants_that_can_not_be_used(grant: str, fault: str) -> None:
    """One line, without the password."""
    environment = {"TOKEN": "hunter2", "COLONS": "me:hun:ter2"}
    with pytest.raises(InvalidOptionError) as caught:
        auth_of([grant], environment=environment)
    assert str(caught.value).startswith(fault)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("contents", "fault"),
    [
        ("{", "is not JSON"),
        ('{"auths": {"a.test": {"auth": "hunter2!"}}}', "auths[a.test].auth is not base64"),
        ("{}", "holds no user with a password"),
        ('{"credsStore": "desktop"}', "holds no user with a password; a program has them"),
    ],
)
def test_dockers_file_that_can_not_be_used(contents: str, fault: str, tmp_path: Path) -> None:
    """Names the file, and shows nothing of what is in it."""
    file = tmp_path / "config.json"
    file.write_text(contents)
    with pytest.raises(InvalidOptionError) as caught:
        auth_of([], file=str(file))
    assert fault in str(caught.value)
    assert str(file) in str(caught.value)
    assert "hunter2" not in str(caught.value)
