"""Docker's credential helpers, as programs that are really run."""

from __future__ import annotations

import os
from pathlib import Path

import anyio
import pytest

from imgbuilder.core.permissions import basic_credentials
from imgbuilder.registry.dockerconfig import Helper
from imgbuilder.registry.errors import CredentialsUnavailableError
from imgbuilder.registry.helpers import ask_helper
from imgbuilder.registry.keychain import Keychain
from imgbuilder.registry.pullsecret import PullSecret
from imgbuilder.runtime.tasks import Tasks

HELPER = Helper(name="test", server="a.test")


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that programs are found in."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def install(programs: Path, script: str, name: str = "test") -> None:
    """Make *script* a helper."""
    program = programs / f"docker-credential-{name}"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


async def test_a_user_with_a_password(programs: Path) -> None:
    """The helper is told what to get, and for whom."""
    install(programs, 'read server; echo "{\\"Username\\":\\"$1 $server\\",\\"Secret\\":\\"p\\"}"')
    assert await ask_helper("a.test", HELPER) == basic_credentials("get a.test", "p")


async def test_an_identity_token(programs: Path) -> None:
    """Its user name says that it is one."""
    install(programs, """echo '{"ServerURL":"a.test","Username":"<token>","Secret":"refresh"}'""")
    credentials = await ask_helper("a.test", HELPER)
    assert credentials is not None
    assert credentials.identity_token.reveal() == "refresh"
    assert not credentials.password


@pytest.mark.parametrize(
    "script",
    ["echo 'credentials not found in native keychain'; exit 1", """echo '{"Username":"","Secret":""}'"""],
)
async def test_a_helper_without_credentials(programs: Path, script: str) -> None:
    """It says so in one of two ways."""
    install(programs, script)
    assert await ask_helper("a.test", HELPER) is None


@pytest.mark.parametrize(
    ("script", "fault"),
    [
        ("echo hunter2; echo hunter2 >&2; exit 3", "helper test fails"),
        ("echo hunter2", "does not answer as helpers do"),
        ("echo '[1]'", "does not answer as helpers do"),
        ("""echo '{"Username":"hunter2"}'""", "does not answer as helpers do"),
        ("""echo '{"Username":1,"Secret":"hunter2"}'""", "does not answer as helpers do"),
        ("exec head -c 10000000 /dev/zero", "fails|does not answer as helpers do"),
        ("yes hunter2", "fails|does not answer as helpers do"),
        ("exec 0<&-; exit 0", "does not answer as helpers do"),
        ("kill -9 $$", "helper test fails"),
    ],
)
async def test_a_helper_that_fails(programs: Path, script: str, fault: str) -> None:
    """The error names the helper, and nothing that it prints."""
    install(programs, script)
    with pytest.raises(CredentialsUnavailableError, match=fault) as caught:
        await ask_helper("a.test", HELPER)
    assert "hunter2" not in repr(caught.value)


async def test_a_helper_that_is_not_there() -> None:
    """The error says that it can't be run."""
    helper = Helper(name="no-such-program", server="a.test")
    with pytest.raises(CredentialsUnavailableError, match="can't be run: No such file or directory"):
        await ask_helper("a.test", helper)


async def test_a_helper_that_hangs_is_ended(programs: Path, tmp_path: Path) -> None:
    """With everything that it started."""
    pids = tmp_path / "pids"
    install(programs, f"sleep 600 & echo $! > {pids}; echo $$ >> {pids}; wait")
    with pytest.raises(CredentialsUnavailableError, match="does not answer in time"):
        await ask_helper("a.test", HELPER, time_limit=1)
    for pid in pids.read_text().split():
        await _ended(int(pid))


async def test_a_caller_who_leaves_ends_the_helper(programs: Path, tmp_path: Path) -> None:
    """Nothing is left of it."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    install(programs, f"echo $$ > {pipe}; sleep 600")
    async with anyio.create_task_group() as group:
        group.start_soon(ask_helper, "a.test", HELPER)
        pid = int(await anyio.Path(pipe).read_text())
        group.cancel_scope.cancel()
    await _ended(pid)


async def test_the_keychain_asks_a_helper_once(programs: Path, tmp_path: Path) -> None:
    """By several at a time, and for a while; what it has comes before what the file has."""
    count = tmp_path / "count"
    install(programs, f"""echo x >> {count}; echo '{{"Username":"u","Secret":"p"}}'""")
    install(programs, f"""echo x >> {count}; echo 'credentials not found'; exit 1""", name="empty")
    file = tmp_path / "config.json"
    file.write_text(
        '{"credHelpers": {"a.test": "test", "b.test": "empty"},'
        ' "auths": {"a.test": {"auth": "eDp5"}, "b.test": {"auth": "eDp5"}}}',
    )
    async with Tasks() as tasks:
        keychain = Keychain(pull_secret=PullSecret(file), ecr=None, tasks=tasks)
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(keychain.credentials, "a.test")
        assert await keychain.credentials("a.test") == basic_credentials("u", "p")
        assert count.read_text() == "x\n"
        for _ in range(2):
            assert await keychain.credentials("b.test") == basic_credentials("x", "y")
        assert count.read_text() == "x\nx\n"
        assert await keychain.credentials("c.test") is None


async def _ended(pid: int) -> None:
    """Wait for the end of a process, which has been brought about."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        with anyio.fail_after(20):
            await anyio.wait_readable(descriptor)
    finally:
        os.close(descriptor)
