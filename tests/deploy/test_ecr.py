"""Amazon's registries with the role of a service account: the service that runs so, and what docs/ecr.md says."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio
import botocore.session
import pytest
from grpclib.exceptions import GRPCError

from imgbuilder.registry.settings import RegistrySettings
from tests.contract.service.client import Client, connected, reference
from tests.deploy.amazon import IDENTITY, PASSWORD, REGISTRY, ROLE, Amazon, AmazonRegistry, Right
from tests.deploy.rendering import NAME, ROOT, Rendered
from tests.world.process import ServiceProcess, service_process
from tests.world.world import World

DOCUMENT: Final = (ROOT / "docs/ecr.md").read_text()
POLICIES: Final = sorted((ROOT / "config/aws").glob("*.json"))
NOT_IN_THE_MODEL: Final = {"sts:GetServiceBearerToken"}
"""AWS checks it as a right, and has no call of that name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InCluster:
    """A service as it runs in a cluster of Amazon's."""

    service: ServiceProcess
    client: Client
    registry: AmazonRegistry

    async def warned(self, count: int) -> None:
        """Wait until its log has *count* lines that are worth a look: they come by another way than answers."""
        with anyio.fail_after(30):
            while len(self.warnings()) < count:  # noqa: ASYNC110  # the log is read line by line, by another task
                await anyio.sleep(0.02)

    def warnings(self) -> list[dict[str, Any]]:
        """What its log says that is worth a look, as far as it is the same each time."""
        shown = ("level", "message", "registry", "reason")
        return [
            {name: record[name] for name in shown if name in record}
            for record in self.service.records
            if record["level"] in {"warning", "error"}
        ]


@asynccontextmanager
async def in_cluster(
    patch: pytest.MonkeyPatch, folder: Path, *, lacking: Right | None = None, role: bool = True
) -> AsyncIterator[InCluster]:
    """One, whose role lacks a right; or one without a role."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        patch.delenv(name, raising=False)
    token = folder / "token"
    token.write_text(IDENTITY)
    async with AmazonRegistry(lacking) as registry, Amazon(lacking) as amazon, World() as world:
        registry.put_image("base", "latest")
        environment = {
            "AWS_ENDPOINT_URL": amazon.url,
            "AWS_REGION": "eu-central-1",
            "AWS_DEFAULT_REGION": "eu-central-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/nonexistent",
            "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
            "HTTP_PROXY": registry.url,
            "http_proxy": registry.url,
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }
        if role:
            environment |= {"AWS_ROLE_ARN": ROLE, "AWS_WEB_IDENTITY_TOKEN_FILE": str(token)}
        for name, value in environment.items():
            patch.setenv(name, value)
        config = world.service_config(
            orchestrator={
                "baseImageRepository": f"{REGISTRY}/base-images",
                "workspaceImageRepository": f"{REGISTRY}/workspace-images",
                "enableAdditionalECRAuth": True,
            },
            registries={"insecure": [REGISTRY]},
        )
        async with (
            service_process(config, folder) as service,
            connected(int(service.host.rpartition(":")[2])) as client,
        ):
            yield InCluster(service=service, client=client, registry=registry)


async def outcome(client: Client) -> str:
    """What a client is told that asks for an image in the registry."""
    try:
        return await client.resolve(f"{REGISTRY}/base:latest")
    except GRPCError as error:
        return f"{error.status.name} {error.message}"


async def test_the_role_of_the_service_account_is_enough(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nothing else is configured: no keys, no pull secret; and no secret is logged."""
    async with in_cluster(monkeypatch, tmp_path) as cluster:
        assert (await outcome(cluster.client)).startswith(f"{REGISTRY}/base@sha256:")
        ref = await cluster.client.workspace_image(reference(f"{REGISTRY}/base:latest"))
        assert REGISTRY in str(ref)
        assert cluster.warnings() == []
        log = json.dumps(cluster.service.records)
    assert PASSWORD not in log
    assert IDENTITY not in log


@pytest.mark.parametrize(
    "lacking",
    ["sts:AssumeRoleWithWebIdentity", "ecr:GetAuthorizationToken", "ecr:BatchGetImage", None],
    ids=str,
)
async def test_a_right_that_is_missing_is_told_as_documented(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lacking: Right | None
) -> None:
    """In docs/ecr.md: the line of the log, and what the client is told. None: there is no role."""
    section = DOCUMENT.partition(f"<!-- {lacking or 'no role'} -->")[2].partition("<!-- end -->")[0]
    documented = section.strip("\n`").removeprefix("text").strip().splitlines()
    async with in_cluster(monkeypatch, tmp_path, lacking=lacking, role=lacking is not None) as cluster:
        told = await outcome(cluster.client)
        await cluster.warned(len(documented) - 1)
        warnings = cluster.warnings()
    assert documented == [*map(json.dumps, warnings), told]


def actions(policy: dict[str, Any]) -> set[str]:
    """The rights that a policy gives."""
    found: set[str] = set()
    for statement in policy["Statement"]:
        action = statement["Action"]
        found |= {action} if isinstance(action, str) else set(action)
    return found


@pytest.mark.parametrize("file", POLICIES, ids=lambda file: file.name)
def test_a_policy_is_the_documented_one(file: Path) -> None:
    """Word for word; and it is named."""
    assert f"```json\n{file.read_text()}```" in DOCUMENT
    assert f"config/aws/{file.name}" in DOCUMENT


@pytest.mark.parametrize("file", POLICIES, ids=lambda file: file.name)
def test_policies_give_rights_that_there_are(file: Path) -> None:
    """By AWS' own list of calls, and no more than is named: there is no star among them."""
    session = botocore.session.get_session()
    policy = json.loads(file.read_text())
    assert policy["Version"] == "2012-10-17"
    for action in actions(policy) - NOT_IN_THE_MODEL:
        service, _, name = action.partition(":")
        assert name in session.get_service_model(service).operation_names
    for statement in policy["Statement"]:
        assert statement["Effect"] == "Allow"
        if statement.get("Resource") == "*":
            assert all("Token" in action for action in actions({"Statement": [statement]}))


def test_the_role_trusts_the_service_account_alone(rendered: Rendered) -> None:
    """In the namespace of the overlay, by the name of the account; the role is the one of its annotation."""
    (statement,) = json.loads((ROOT / "config/aws/trust.json").read_text())["Statement"]
    conditions = statement["Condition"]["StringEquals"]
    account = rendered.one("ServiceAccount")["metadata"]
    subject = f"system:serviceaccount:{account['namespace']}:{account['name']}"
    assert {key.rpartition(":")[2]: value for key, value in conditions.items()} == {
        "aud": "sts.amazonaws.com",
        "sub": subject,
    }
    provider = statement["Principal"]["Federated"].partition("oidc-provider/")[2]
    assert {key.rpartition(":")[0] for key in conditions} == {provider}
    role = account.get("annotations", {}).get("eks.amazonaws.com/role-arn", ROLE)
    assert role == ROLE
    assert account["name"] == NAME


def test_the_documented_time_is_the_real_one() -> None:
    """The document says how long a look-up may wait for AWS."""
    assert RegistrySettings.__dataclass_fields__["lookup_timeout"].default == 40
    assert re.search(r"\b40 s\b", DOCUMENT)
