"""What tests of engines share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from imgbuilder.core.permissions import basic_credentials
from imgbuilder.standalone.engines.protocol import BuildRequest, EngineSettings
from tests.unit.standalone.engines.programs import Programs

PASSWORD = "pass-7f3a"

TOOLS = ("sh", "cat", "chmod", "cp", "ls", "mkdir", "rm", "setpriv", "sleep")
"""What scripts of programs need; this machine's engines are none of the tests'."""


@pytest.fixture
def settings(tmp_path: Path) -> EngineSettings:
    """Settings with a data folder that is not there yet."""
    return EngineSettings(data_dir=tmp_path / "data", probe_limit=10)


@pytest.fixture
def request_(tmp_path: Path) -> BuildRequest:
    """A build of next to nothing, with credentials."""
    context, scratch = tmp_path / "context", tmp_path / "scratch"
    context.mkdir()
    scratch.mkdir()
    (context / "Dockerfile").write_text("FROM scratch\n")
    return BuildRequest(
        build_id="4711",
        context=context,
        dockerfile=context / "Dockerfile",
        scratch=scratch,
        pull_auth={"registry.example": basic_credentials("user", PASSWORD)},
        insecure=frozenset({"127.0.0.1:5000"}),
        memory=1_000_000,
        cpus=1.5,
    )


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """No programs yet."""
    folder = tmp_path / "programs"
    folder.mkdir()
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in TOOLS:
        (tools / name).symlink_to(shutil.which(name) or "/nonexistent")
    monkeypatch.setenv("PATH", f"{folder}:{tools}")
    monkeypatch.setattr("imgbuilder.standalone.processes.FOLDERS", ())
    for name in ("DOCKER_HOST", "DOCKER_CONFIG", "DOCKER_CONTEXT", "BUILDX_CONFIG", "BUILDKIT_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return Programs(folder)
