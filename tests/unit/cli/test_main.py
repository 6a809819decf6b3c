"""The command line: what it understands, and how it fails."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import structlog

import imgbuilder
from imgbuilder.cli.main import execute
from imgbuilder.cli.options import without_go_flags
from imgbuilder.config import Config, json_schema
from imgbuilder.core.errors import ImgbuilderError, InvalidInputError

EXAMPLE = "config/example.json"


class FakeService:
    """Stands for the module that assembles a service: remembers what it was started with."""

    def __init__(self) -> None:
        self.started: list[tuple[Config, bool]] = []
        self.failure: Exception | None = None

    async def serve(self, config: Config, *, debug: bool) -> None:
        """Serves, or fails."""
        self.started.append((config, debug))
        structlog.get_logger("fake").info("serving", token="hunter2")  # to be hidden
        structlog.get_logger("fake").debug("in detail")
        if self.failure is not None:
            raise self.failure


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> FakeService:
    """The service that `run` starts."""
    fake = FakeService()
    module: Any = types.ModuleType("imgbuilder.cli.service")
    module.serve = fake.serve
    monkeypatch.setitem(sys.modules, "imgbuilder.cli.service", module)
    return fake


Output = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def logged(capfd: pytest.CaptureFixture[str]) -> Output:
    """What was logged in JSON."""
    return lambda: [json.loads(line) for line in capfd.readouterr().err.splitlines()]


@pytest.mark.parametrize("arguments", [["version"], ["--version"]])
def test_the_version_is_printed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """As a command and as a flag."""
    assert execute(arguments) == 0
    assert capsys.readouterr().out == f"imgbuilder {imgbuilder.__version__}\n"


def test_the_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """As JSON, and nothing else."""
    assert execute(["generate", "config"]) == 0
    assert json.loads(capsys.readouterr().out) == json_schema()


@pytest.mark.parametrize(
    "arguments", [[], ["--help"], ["-h"], ["run", "--help"], ["generate"], ["generate", "--help"]]
)
def test_help_is_printed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Where it is asked for, and where a command is missing."""
    assert execute(arguments) == 0
    out, err = capsys.readouterr()
    assert "Usage: imgbuilder" in out
    assert not err


@pytest.mark.parametrize(
    ("arguments", "debug"),
    [
        (["run", "--config", EXAMPLE], False),
        (["--config", EXAMPLE, "run"], False),
        ([f"--config={EXAMPLE}", "run", "-v"], True),
        (["-v", "run", "--config", EXAMPLE], True),
        (["run", "-vj", "--config", EXAMPLE], True),
        (["--verbose=true", "run", "--config", EXAMPLE], True),
        (["--verbose", "run", "--verbose=false", "--config", EXAMPLE], False),
        (["--config", "elsewhere.json", "run", "--config", EXAMPLE], False),
        (["--json-log=true", "run", "--config", EXAMPLE, "-v=f"], False),
    ],
)
def test_flags_stand_before_or_after_the_command(
    arguments: list[str], debug: bool, service: FakeService, logged: Output
) -> None:
    """As in the system that is replaced; the later one wins."""
    assert execute(arguments) == 0
    ((config, was_debug),) = service.started
    assert config.orchestrator.builder_image == "localhost:5000/builder:latest"
    assert was_debug == debug
    assert [entry["message"] for entry in logged()] == ["serving", "in detail"][: 1 + debug]


def test_logs_have_no_credentials(service: FakeService, logged: Output) -> None:
    """The pipeline is in place when the service starts."""
    execute(["run", "--config", EXAMPLE])
    assert [entry["token"] for entry in logged()] == ["***"]


@pytest.mark.parametrize("flag", ["--no-json-log", "--json-log=false", "-j=0"])
def test_json_can_be_turned_off(flag: str, service: FakeService, capfd: pytest.CaptureFixture[str]) -> None:
    """By our flag, and as Go programs are told."""
    assert execute(["run", "--config", EXAMPLE, flag]) == 0
    assert " serving" in capfd.readouterr().err
    with pytest.raises(json.JSONDecodeError):
        json.loads(capfd.readouterr().err)


def test_unknown_keys_are_logged(service: FakeService, logged: Output, tmp_path: Path) -> None:
    """With their paths; the service starts all the same."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(Path(EXAMPLE).read_text()) | {"colour": "red"}))
    assert execute(["run", "--config", str(path)]) == 0
    warning = logged()[0]
    assert (warning["level"], warning["keys"], warning["file"]) == ("warning", ["colour"], str(path))


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["run"], 2, "imgbuilder run: Missing option --config FILE (see imgbuilder run --help)"),
        (["run", "--fast"], 2, "imgbuilder run: No such option: --fast (see imgbuilder run --help)"),
        (["fly"], 2, "imgbuilder: No such command 'fly'. (see imgbuilder --help)"),
        (
            ["lsit"],
            2,
            "imgbuilder: No such command 'lsit'. Did you mean 'list'? (see imgbuilder --help)",
        ),
        (
            ["run", "--config"],
            2,
            "imgbuilder: Option '--config' requires an argument. (see imgbuilder --help)",
        ),
        (
            ["run", "--config", "/no/such"],
            1,
            "imgbuilder: /no/such: cannot be read: No such file or directory",
        ),
        (["run", "--config", "/etc"], 1, "imgbuilder: /etc: cannot be read: Is a directory"),
    ],
)
def test_what_is_wrong_is_one_line(
    arguments: list[str], status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """On standard error: with exit status 2 where the command line is wrong, 1 for a configuration."""
    assert execute(arguments) == status
    assert capsys.readouterr() == ("", f"{message}\n")


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (ImgbuilderError("cannot listen on :8080: in use"), "imgbuilder: cannot listen on :8080: in use"),
        (
            ExceptionGroup("unhandled", [ImgbuilderError("cannot listen on :8080: in use")]),
            "imgbuilder: cannot listen on :8080: in use",
        ),
        (
            InvalidInputError("orchestrator.wsman.address", "is not a host and a port"),
            f"imgbuilder: {EXAMPLE}: orchestrator.wsman.address: is not a host and a port",
        ),
    ],
)
def test_a_service_that_can_not_start_is_one_line(
    failure: Exception, message: str, service: FakeService, capfd: pytest.CaptureFixture[str]
) -> None:
    """After what was logged; no traceback."""
    service.failure = failure
    assert execute(["run", "--config", EXAMPLE]) == 1
    lines = capfd.readouterr().err.splitlines()
    assert json.loads(lines[0])["message"] == "serving"
    assert lines[1:] == [message]


def test_a_bug_is_logged(service: FakeService, logged: Output) -> None:
    """With its traceback, like everything else."""
    service.failure = ValueError("a bug with https://user:hunter2@host/")
    assert execute(["run", "--config", EXAMPLE]) == 1
    entry = logged()[-1]
    assert (entry["level"], entry["message"]) == ("error", "the service failed")
    assert "ValueError: a bug with https://***@host/" in entry["exception"]


@pytest.mark.parametrize(
    ("arguments", "spelled"),
    [
        (["--json-log=T", "-j=1", "-v=TRUE"], ["--json-log", "-j", "-v"]),
        (["--json-log=F", "-j=0", "-v=False"], ["--no-json-log", "--no-json-log", "--no-verbose"]),
        (
            ["--json-log=maybe", "--config=true", "-x=1", "run"],
            ["--json-log=maybe", "--config=true", "-x=1", "run"],
        ),
    ],
)
def test_flags_as_go_spells_them(arguments: list[str], spelled: list[str]) -> None:
    """All of the words that Go takes for true and false, and no other flags."""
    assert without_go_flags(arguments) == spelled


def test_a_terminal_gets_readable_lines(tmp_path: Path) -> None:
    """JSON is the default elsewhere."""
    program = (
        "import sys, types, structlog\n"
        "module = types.ModuleType('imgbuilder.cli.service')\n"
        "async def serve(config, *, debug): structlog.get_logger().info('serving')\n"
        "module.serve = serve\n"
        "sys.modules['imgbuilder.cli.service'] = module\n"
        "from imgbuilder.cli.main import execute\n"
        f"sys.exit(execute(['run', '--config', {EXAMPLE!r}]))\n"
    )
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run([sys.executable, "-c", program], stderr=theirs, check=False, timeout=30)
        shown = os.read(ours, 65536).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == 0
    assert "serving" in shown
    assert "{" not in shown


def test_the_module_is_the_program() -> None:
    """`python -m imgbuilder` ends with the status of the command."""
    done = subprocess.run(
        [sys.executable, "-m", "imgbuilder", "run"], capture_output=True, text=True, check=False, timeout=30
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "imgbuilder run: Missing option --config FILE (see imgbuilder run --help)\n"
