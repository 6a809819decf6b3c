"""The program as users run it: in a process of its own, on a terminal and without, over TLS."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from tests.contract.cli.conftest import started
from tests.contract.cli.terminals import on_terminal, run_program
from tests.contract.service.client import reference
from tests.contract.service.conftest import Served, unobserved
from tests.unit.test_layout import imported_by
from tests.world.certificates import Authority
from tests.world.process import service_process
from tests.world.scripts import LINES, succeeding, waiting
from tests.world.world import World

SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


@pytest.fixture
def host(served: Served, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the service is, which programs know by the variable."""
    host = f"127.0.0.1:{served.running.address.port}"
    monkeypatch.setenv("IMGBUILDER_HOST", host)
    return host


async def test_a_service_process_with_tls(world: World, authority: Authority, tmp_path: Path) -> None:
    """The whole way: two programs, certificates on both sides."""
    server, ours = authority.files("127.0.0.1"), authority.files("client.test")
    tls = {
        "caPath": server.ca,
        "certPath": server.certificate,
        "keyPath": server.key,
        "requireClientCert": True,
    }
    config = unobserved(world, server={"services": {"grpc": {"tls": tls}}})
    async with service_process(config, tmp_path) as service:
        environment = {
            "IMGBUILDER_HOST": service.host,
            "IMGBUILDER_TLS_CA": ours.ca,
            "IMGBUILDER_TLS_CERT": ours.certificate,
            "IMGBUILDER_TLS_KEY": ours.key,
        }
        done = await run_program("build", "--ref", world.seed_base_image(), environment=environment)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode().splitlines()[3:6] == list(LINES)


async def test_a_build_on_a_terminal(world: World, host: str) -> None:
    """Its output, and below it what changes; Ctrl-C leaves it running, and says how to watch it again."""
    finish = anyio.Event()
    world.script = waiting(finish, ["\x1b[32mgreen\x1b[0m"])
    ref = world.seed_base_image()
    async with on_terminal("build", "--ref", ref) as terminal:
        await terminal.until("green")
        await terminal.until("running")
        terminal.press(b"\x03")
        assert await terminal.end() == 130
    (build_id,) = started(world)
    again = f"imgbuilder logs {build_id} --host {host}"
    assert (
        f"imgbuilder build: the build goes on. To watch it again: {again} (or build the same" in terminal.text
    )
    assert "\x1b[32mgreen" in terminal.shown  # with its colours
    assert any(sign in terminal.text for sign in SPINNER)
    assert terminal.shown.rindex("\x1b[?25h") > terminal.shown.rindex("\x1b[?25l")  # the cursor is back
    assert "Traceback" not in terminal.text
    assert not world.manager.received("StopWorkspace")

    async with on_terminal(*again.split()[1:]) as logs:
        await logs.until("green")
        finish.set()
        assert await logs.end() == 0


async def test_a_batch_on_a_terminal(world: World, host: str, tmp_path: Path) -> None:
    """A table, and a summary that stays."""
    refs = [world.seed_base_image(tag="a"), f"{world.registry.host}/none:1"]
    file = tmp_path / "list"
    file.write_text("\n".join(refs))
    async with on_terminal("build-batch", str(file)) as terminal:
        assert await terminal.end() == 1
    assert "IMAGE" in terminal.text
    assert "2 of 2 done, 1 failed" in terminal.text
    assert "==> 1 of 2 images are there, after " in terminal.text


async def test_watching_on_a_terminal(world: World, served: Served, host: str) -> None:
    """A table that changes; Ctrl-C is how it ends, which is no error."""
    finish = anyio.Event()
    world.script = waiting(finish)
    async with on_terminal("list", "--watch", "--interval", "50ms") as terminal:
        await terminal.until("no builds are running; Ctrl-C ends")
        async with anyio.create_task_group() as group:
            group.start_soon(served.client.build, reference(world.seed_base_image()))
            (request,) = await world.manager.wait_for_start()
            await terminal.until(request.id)
            finish.set()
        terminal.press(b"\x03")
        assert await terminal.end() == 0
    assert "Traceback" not in terminal.text


async def test_a_terminal_that_can_do_nothing(world: World, host: str) -> None:
    """Gets plain lines."""
    environment = {"TERM": "dumb"}
    async with on_terminal("build", "--ref", world.seed_base_image(), environment=environment) as terminal:
        assert await terminal.end() == 0
    assert "\x1b" not in terminal.shown
    assert LINES[-1] in terminal.text


async def test_a_terminal_that_knows_few_characters(world: World, host: str) -> None:
    """What it can't show is replaced."""
    world.script = succeeding(["grün 漢字"])
    environment = {"PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}
    done = await run_program("build", "--ref", world.seed_base_image(), environment=environment)
    assert (done.returncode, done.stderr) == (0, b"")
    assert "grün ??" in done.stdout.decode("latin-1")


async def test_a_reader_that_leaves(world: World, served: Served, host: str) -> None:
    """Such as ``head``: the program ends, and says nothing about it."""
    world.script = waiting(anyio.Event(), [f"line {number}" for number in range(20000)])
    async with anyio.create_task_group() as group:
        group.start_soon(served.client.build, reference(world.seed_base_image()))
        (request,) = await world.manager.wait_for_start()
        command = f"{sys.executable} -m imgbuilder logs {request.id} | head -n 1; exit ${{PIPESTATUS[0]}}"
        with anyio.fail_after(50):
            done = await anyio.run_process(["bash", "-c", command], check=False)
        group.cancel_scope.cancel()
    assert done.stdout.decode().splitlines() == ["Connecting to log output ..."]
    assert (done.returncode, done.stderr) == (141, b"")


# --- what is imported -----------------------------------------------------------------------------------------


def test_a_service_is_without_its_clients() -> None:
    """What only they need costs a service nothing."""
    program = (
        "from imgbuilder.cli.main import execute; from imgbuilder.cli.run import load_service; load_service()"
    )
    modules = imported_by(f"{program}; execute(['run', '--config', '/no/such'])")
    assert "imgbuilder.cli.service" in modules
    mine = {name for name in modules if name.startswith(("imgbuilder.client", "imgbuilder.cli.client"))}
    assert mine == set()
    assert not {"jinja2", "jsonpath", "rich"} & modules


def test_a_client_imports_what_it_uses() -> None:
    """No rich without a terminal, no templates without one, and nothing of a service."""
    modules = imported_by(
        "from imgbuilder.cli.main import execute; execute(['list', '--host', '127.0.0.1:1'])"
    )
    assert "imgbuilder.client.connection" in modules
    others = {"imgbuilder.api", "imgbuilder.orchestrator", "imgbuilder.standalone", "imgbuilder.kube"}
    assert not ({"jinja2", "jsonpath", "rich", "kubernetes_asyncio", "httpx"} | others) & modules


# --- completion -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_completion_scripts(shell: str) -> None:
    """Each names the program, and asks it."""
    done = await run_program("generate", "completion", shell)
    assert done.returncode == 0
    assert b"_IMGBUILDER_COMPLETE" in done.stdout
    assert b"imgbuilder" in done.stdout


def test_completion_in_bash() -> None:
    """The script completes commands, and the options of a command that is imported for that."""
    folder = Path(sys.executable).parent
    script = """
        source <(imgbuilder generate completion bash)
        complete_it() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _imgbuilder_completion imgbuilder; }
        complete_it imgbuilder bu; echo "${COMPREPLY[*]}"
        complete_it imgbuilder build --git; echo "${COMPREPLY[*]}"
    """
    done = subprocess.run(
        ["bash", "-c", script],
        env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
        timeout=50,
    )
    commands, options = done.stdout.splitlines()
    assert commands.split() == ["build", "build-batch"]
    assert options.split() == ["--git", "--git-auth"]
