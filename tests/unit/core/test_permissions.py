"""Which credentials a request may use, and what the build workspace is given."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgbuilder.core.errors import InvalidInputError
from imgbuilder.core.permissions import (
    ECR_STAND_IN,
    Credentials,
    Permissions,
    basic_credentials,
    check_additional,
    decode_additional,
    ecr_region,
    is_ecr,
    permissions_of,
    workspace_auth,
)
from imgbuilder.core.secrets import Secret
from imgbuilder.pb.builder import BuildRegistryAuth, BuildRegistryAuthSelective, BuildRegistryAuthTotal

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "vectors" / "additional_auth.json").read_text(encoding="utf-8"),
)["cases"]
ECR = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"


def granted(auth: BuildRegistryAuth | None) -> Permissions:
    """What *auth* grants where base and workspace images are kept in two registries."""
    return permissions_of(auth, base_registry="base.test", workspace_registry="workspace.test")


@pytest.mark.parametrize(
    ("auth", "allowed"),
    [
        (None, []),
        (BuildRegistryAuth(), []),
        (BuildRegistryAuth(total=BuildRegistryAuthTotal()), []),
        (
            BuildRegistryAuth(total=BuildRegistryAuthTotal(allow_all=True)),
            ["base.test", "workspace.test", "other.test"],
        ),
        (BuildRegistryAuth(selective=BuildRegistryAuthSelective()), []),
        (BuildRegistryAuth(selective=BuildRegistryAuthSelective(allow_baserep=True)), ["base.test"]),
        (
            BuildRegistryAuth(selective=BuildRegistryAuthSelective(allow_workspacerep=True)),
            ["workspace.test"],
        ),
        (BuildRegistryAuth(selective=BuildRegistryAuthSelective(any_of=["other.test"])), ["other.test"]),
    ],
)
def test_own_credentials_are_granted_one_by_one(auth: BuildRegistryAuth | None, allowed: list[str]) -> None:
    """Nothing but what the request's mode names, and Amazon's always."""
    permissions = granted(auth)
    registries = ["base.test", "workspace.test", "other.test"]
    assert [registry for registry in registries if permissions.may_use(registry)] == allowed
    assert permissions.may_use(ECR)


def test_additional_credentials_are_kept_as_sent() -> None:
    """They come along whatever the mode, and are hidden."""
    permissions = granted(BuildRegistryAuth(additional={"ghcr.io": "dTpw"}))
    assert permissions.additional == {"ghcr.io": Secret("dTpw")}
    assert "dTpw" not in repr(permissions)


def test_one_more_registry_can_be_granted() -> None:
    """The permissions it is added to stay as they are."""
    permissions = granted(None)
    assert permissions.with_registry("base.test").may_use("base.test")
    assert not permissions.may_use("base.test")


def test_the_service_may_use_everything_of_its_own() -> None:
    """All its credentials, and none that a request brought."""
    permissions = Permissions.everything()
    assert permissions.may_use("anything.test")
    assert not permissions.additional


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: json.dumps(vector["additional"]))
def test_what_the_build_workspace_is_given(vector: dict[str, Any]) -> None:
    """Byte for byte what the contract says."""
    additional = {registry: Secret(value) for registry, value in vector["additional"].items()}
    given_to_it = workspace_auth(additional, workspace_registry="TARGET", own={})
    assert given_to_it == vector["WORKSPACEKIT_BOBPROXY_ADDITIONALAUTH"]


def test_own_credentials_replace_those_of_the_request() -> None:
    """The service's own are given to the build workspace as well, sorted among the others."""
    own = {"ghcr.io": basic_credentials("me", "mine"), ECR_STAND_IN: basic_credentials("AWS", "token")}
    document = workspace_auth(
        {"ghcr.io": Secret("dTpw"), "a.test": Secret("dTpw")},
        workspace_registry="workspace.test",
        own=own,
    )
    assert list(json.loads(document)) == [ECR_STAND_IN, "a.test", "ghcr.io"]
    assert json.loads(document)["ghcr.io"] == {"username": "me", "password": "mine", "auth": "bWU6bWluZQ=="}


def test_tokens_are_given_under_their_names_in_docker() -> None:
    """Identity and registry tokens of the service's own are not lost."""
    own = {"a.test": Credentials(identity_token=Secret("i"), registry_token=Secret("r"))}
    document = workspace_auth({}, workspace_registry="workspace.test", own=own)
    assert json.loads(document) == {"a.test": {"identitytoken": "i", "registrytoken": "r"}}


@given(user=st.text(max_size=20), password=st.text(max_size=20).filter(lambda text: ":" not in text))
def test_additional_credentials_are_split_at_the_last_colon(user: str, password: str) -> None:
    """So a user name may have colons."""
    value = Secret(base64.b64encode(f"{user}:{password}".encode()).decode())
    assert decode_additional(value) == Credentials(username=user, password=Secret(password), auth=value)


@given(st.text(max_size=40))
def test_any_additional_value_is_decoded_or_kept(text: str) -> None:
    """Nothing that a request may send makes decoding fail."""
    assert decode_additional(Secret(text)).auth == Secret(text)


@pytest.mark.parametrize("value", ["dTpw", "", "bm9jb2xvbg==", "dT\npw"])
def test_base64_is_accepted(value: str) -> None:
    """With or without a colon inside: whoever uses it finds out."""
    check_additional({"ghcr.io": Secret(value)})


@pytest.mark.parametrize("value", ["not base64!", "dTp", "dTpw=", "ümlaut"])
def test_what_is_not_base64_is_refused_by_name(value: str) -> None:
    """The error names the field, and not the value."""
    with pytest.raises(InvalidInputError) as caught:
        check_additional({"z.test": Secret("dTpw"), "ghcr.io": Secret(value)})
    assert caught.value.field == "auth.additional[ghcr.io]"
    assert caught.value.fault == "is not base64 of user:password"
    assert value not in str(caught.value)


@pytest.mark.parametrize(
    ("registry", "region"),
    [
        (ECR, "eu-west-1"),
        ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", "cn-north-1"),
        (ECR_STAND_IN, None),
        ("public.ecr.aws", None),
    ],
)
def test_registries_of_amazon(registry: str, region: str | None) -> None:
    """Private ones have a region in their name; the stand-in for all of them has none."""
    assert is_ecr(registry)
    assert ecr_region(registry) == region


@pytest.mark.parametrize(
    "registry",
    [
        f"evil.test/{ECR}",
        f"x{ECR}",
        f"{ECR}.evil.test",
        f"{ECR}\n",
        f"{ECR}:443",
        "123456789012xdkr.ecr.eu-west-1.amazonaws.com",
        "123456789012.dkr.ecr.eu-west-1.evil.amazonaws.com",
        "12345678901.dkr.ecr.eu-west-1.amazonaws.com",
        "١٢٣٤٥٦٧٨٩٠١٢.dkr.ecr.eu-west-1.amazonaws.com",
        "docker.io",
    ],
)
def test_what_only_looks_like_amazon(registry: str) -> None:
    """The whole name counts, and every dot is one."""
    assert not is_ecr(registry)
    assert ecr_region(registry) is None


def test_fingerprints_tell_credentials_apart() -> None:
    """Equal for equal ones only, wherever the same characters stand."""
    alike = [
        Credentials(username="ab", password=Secret("c")),
        Credentials(username="a", password=Secret("bc")),
        Credentials(username="ab", identity_token=Secret("c")),
        Credentials(username="ab", registry_token=Secret("c")),
        Credentials(username="ab", auth=Secret("c")),
    ]
    assert len({credentials.fingerprint() for credentials in alike}) == len(alike)
    assert alike[0].fingerprint() == Credentials(username="ab", password=Secret("c")).fingerprint()


def test_credentials_hide_themselves() -> None:
    """Their repr shows the user name at most."""
    shown = repr(basic_credentials("user", "hunter2"))
    assert "hunter2" not in shown
    assert base64.b64encode(b"user:hunter2").decode() not in shown
