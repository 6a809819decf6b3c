"""Builds with credentials: a registry and a git server that want a password, which nobody else gets to see."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from imgbuilder.pb.builder import BuildRegistryAuth, BuildRegistryAuthTotal, BuildSource
from imgbuilder.pb.contentservice import (
    CloneTargetMode,
    GitAuthMethod,
    GitConfig,
    GitInitializer,
    WorkspaceInitializer,
)
from imgbuilder.pb.wsman import WorkspacePhase
from tests.contract.service.client import connected, dockerfile, reference
from tests.e2e.standalone.images import pulled
from tests.e2e.standalone.programs import StandaloneProcess, need, standalone_process
from tests.e2e.standalone.workspaces import failure_of, workspaces
from tests.unit.standalone.requests import build_request
from tests.world.baseimage import push_base_image
from tests.world.git import GitServer, Repository, Rules
from tests.world.registries.processes import docker_registry, htpasswd

USER, PASSWORD = "builder", "correct-horse-51f7"
GIT_USER, GIT_PASSWORD = "cloner", "battery-staple-9c2e"
EVERYTHING = BuildRegistryAuth(total=BuildRegistryAuthTotal(allow_all=True))


@dataclass(frozen=True, slots=True)
class Private:
    """A standalone whose registry is private."""

    standalone: StandaloneProcess
    base: str


@asynccontextmanager
async def private_standalone(tmp_path: Path) -> AsyncIterator[Private]:
    """A registry that runs already and wants a password, which the standalone knows."""
    need("buildah", "docker-registry", "git")
    pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    (tmp_path / "registry").mkdir()
    (tmp_path / "users").write_text(htpasswd({USER: PASSWORD}))
    auth = {"htpasswd": {"realm": "private", "path": str(tmp_path / "users")}}
    async with docker_registry(tmp_path / "registry", auth) as registry:
        headers = {"Authorization": f"Basic {pair}"}
        base = await push_base_image(registry, tmp_path / "base", headers=headers)
        secret = tmp_path / "pull-secret.json"
        secret.write_text(json.dumps({"auths": {registry.host: {"auth": pair}}}))
        options = ("--engine", "buildah", "--registry", registry.host, "--pull-secret-file", str(secret))
        with standalone_process(tmp_path / "data", *options) as process:
            yield Private(process, base)


def cloning(server: GitServer, revision: str, config: GitConfig) -> BuildSource:
    """A source that clones from *server*."""
    initializer = GitInitializer(
        remote_uri=f"{server.url}/repository",
        target_mode=CloneTargetMode.REMOTE_COMMIT,
        clone_taget=revision,
        config=config,
    )
    return dockerfile(version=revision, source=WorkspaceInitializer(git=initializer))


SNOOPING = "FROM {base}\nRUN env > /env; cat /proc/*/environ /proc/*/cmdline /root/.docker/* > /seen; true\n"
"""A Dockerfile that keeps in its image what a step can see."""


async def test_builds_with_credentials_succeed_and_nobody_sees_them(tmp_path: Path) -> None:
    """Clone, pull, push and copy each get theirs; no log, image or file of the data folder has any."""
    async with (
        private_standalone(tmp_path) as private,
        GitServer(tmp_path / "git", Rules(users={GIT_USER: GIT_PASSWORD}), secret=GIT_PASSWORD) as server,
        connected(private.standalone.port("imageBuilder")) as client,
    ):
        repository = Repository(tmp_path / "git" / "repository")
        basic = GitConfig(
            authentication=GitAuthMethod.BASIC_AUTH, auth_user=GIT_USER, auth_password=GIT_PASSWORD
        )
        once = GitConfig(
            authentication=GitAuthMethod.BASIC_AUTH_OTS, auth_user=GIT_USER, auth_ots=server.secret_address
        )
        snooping = repository.commit(Dockerfile=SNOOPING.format(base=private.base))
        other = repository.commit(Dockerfile=f"FROM {private.base}\nRUN echo other > /other\n")
        told, refs = b"", []
        for source in (
            reference(private.base),
            cloning(server, snooping, basic),
            cloning(server, other, once),
        ):
            last = (await client.build(source, triggered_by="tester", auth=EVERYTHING))[-1]
            assert last.info is not None
            told += await client.log(build_id=last.info.build_id)
            assert last.status.name == "done_success", (last.message, told)
            refs.append(last.ref)
        credentials = f"{USER}:{PASSWORD}"
        snooped, _ = pulled(refs[1], tmp_path / "snooped", credentials=credentials)
        made, _ = pulled(refs[2], tmp_path / "made", credentials=credentials)
        assert made["/other"] == b"other\n"
        assert server.told.asked == 1
        anonymous = cloning(server, other, GitConfig())
        last = (await client.build(anonymous, triggered_by="tester", force_rebuild=True))[-1]
        assert last.status.name == "done_failure"
        told += last.message.encode()
    told += b"".join(snooped.values()) + private.standalone.log.read_bytes()
    told += b"".join(file.read_bytes() for file in private.standalone.data_dir.rglob("*") if file.is_file())
    for secret in (PASSWORD, GIT_PASSWORD, base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()):
        assert secret.encode() not in told


async def test_without_the_right_password_the_user_is_told(tmp_path: Path) -> None:
    """A push that is refused ends that build with a message that names the registry."""
    need("docker-registry")
    (tmp_path / "registry").mkdir()
    (tmp_path / "users").write_text(htpasswd({USER: PASSWORD}))
    auth = {"htpasswd": {"realm": "private", "path": str(tmp_path / "users")}}
    (tmp_path / "open").mkdir()
    async with (
        docker_registry(tmp_path / "registry", auth) as registry,
        docker_registry(tmp_path / "open") as public,
    ):
        base = await push_base_image(public, tmp_path / "base")
        options = (
            "--registry",
            registry.host,
            "--insecure-registry",
            public.host,
            "--no-image-builder",
            "--engine",
            "docker",
        )
        with standalone_process(tmp_path / "data", *options) as process:
            async with workspaces(process) as client:
                await client.start(build_request("w", base=base, target=f"{registry.host}/workspace:1"))
                ended = await client.until("w", WorkspacePhase.STOPPING)
    assert failure_of(ended) == f"cannot make the workspace image: registry {registry.host}: access denied"
