"""The command line of ``imgbuilder standalone``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import imgbuilder.cli.standalone as command
from imgbuilder.cli.main import execute
from imgbuilder.core.manifests import parse_platform
from imgbuilder.standalone.engines.selection import Selection
from imgbuilder.standalone.registry_process import RegistryPlace
from imgbuilder.standalone.server import Standalone
from imgbuilder.standalone.settings import StandaloneSettings


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[StandaloneSettings, dict[str, Any]]]:
    """What would have been started."""
    seen: list[tuple[StandaloneSettings, dict[str, Any]]] = []

    def start(settings: StandaloneSettings, **options: Any) -> int:
        seen.append((settings, options))
        return 0

    monkeypatch.setattr(command, "run_standalone", start)
    return seen


def test_options_become_settings(started: list[tuple[StandaloneSettings, dict[str, Any]]]) -> None:
    """Sizes and platforms in the usual spellings; flags before and after the command."""
    arguments = [
        *(
            "-v",
            "standalone",
            "--data-dir",
            "/d",
            "--memory",
            "4GiB",
            "--cpus",
            "1.5",
            "--cache-size",
            "1MiB",
        ),
        *("--platform", "linux/arm64", "--network", "none", "--concurrency", "3", "--engine", "buildah"),
        *("--insecure-registry", "a:1", "--insecure-registry", "b:2", "--registry", "c:3"),
        *("--image-builder-port", "0", "--allow-weak-isolation", "--allow-file-urls", "--json-log"),
    ]
    assert execute(arguments) == 0
    ((settings, options),) = started
    assert settings.data_dir == Path("/d")
    assert (settings.memory, settings.cpus, settings.cache_limit) == (4 * 1024**3, 1.5, 1024**2)
    assert str(settings.platform) == "linux-arm64"
    assert (settings.network, settings.concurrency, settings.engine) == ("none", 3, "buildah")
    assert settings.insecure == {"a:1", "b:2"}
    assert settings.registry == "c:3"
    assert settings.allow_weak_isolation
    assert settings.allow_file_urls
    assert options == {"image_builder_port": 0, "as_json": True, "debug": True}


def test_the_image_builder_can_be_left_out(started: list[tuple[StandaloneSettings, dict[str, Any]]]) -> None:
    """Then the workspace manager is for somebody else's."""
    assert execute(["standalone", "--no-image-builder"]) == 0
    ((settings, options),) = started
    assert options["image_builder_port"] is None
    assert settings.host == "127.0.0.1"
    assert (settings.wsman_port, settings.supervisor_port, settings.registry_port) == (12001, 12002, 5000)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--host", "0.0.0.0"),
        ("--host", ""),
        ("--memory", "much"),
        ("--cache-size", "0"),
        ("--platform", "amd64"),
        ("--network", "bridge"),
        ("--concurrency", "0"),
        ("--wsman-port", "65536"),
    ],
)
def test_what_makes_no_sense_is_refused(
    arguments: tuple[str, str],
    started: list[tuple[StandaloneSettings, dict[str, Any]]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit status 2 and one line that names the option, and nothing is started."""
    assert execute(["standalone", *arguments]) == 2
    assert not started
    (line,) = capsys.readouterr().err.splitlines()
    assert arguments[0] in line


def test_the_image_builder_is_configured_to_fit() -> None:
    """Its configuration is one that the service takes, and points at what runs."""
    settings = StandaloneSettings(
        data_dir=Path("/d"),
        concurrency=1,
        platform=parse_platform("linux/arm/v7"),
        pull_secret_file=Path("/secret.json"),
        host="::1",
    )
    standalone = Standalone(
        wsman="[::1]:12001",
        supervisors="http://[::1]:12002",
        registry=RegistryPlace(host="127.0.0.1:5000", insecure=True, source="test"),
        engine=Selection(engine=None, capabilities=None, unavailable={}),
        insecure=frozenset({"127.0.0.1:5000"}),
        manager=None,  # type: ignore[arg-type]  # not looked at
    )
    config = command.image_builder_config(settings, standalone, 8080)
    assert config.orchestrator.wsman.address == "[::1]:12001"
    assert config.orchestrator.workspace_image_repository == "127.0.0.1:5000/workspace-images"
    assert config.orchestrator.pull_secret_file == "/secret.json"
    assert str(config.server.services.grpc.address) == "[::1]:8080"
    assert config.registries.insecure == ("127.0.0.1:5000",)
    assert config.registries.platform == "linux/arm/v7"
