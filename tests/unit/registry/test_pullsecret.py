"""The pull-secret file, and how its changes are noticed: on a real file system."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import anyio
import pytest
import structlog
import watchfiles.main

from imgbuilder.registry.dockerconfig import DockerConfigError
from imgbuilder.registry.pullsecret import PullSecret
from imgbuilder.runtime.tasks import Tasks

IN_TIME = 2.0
Watching = Callable[[Path], AbstractAsyncContextManager[PullSecret]]


def contents(password: str) -> str:
    """A file with one password."""
    return json.dumps({"auths": {"a.test": {"username": "u", "password": password}}})


def password_in(secret: PullSecret) -> str:
    """The one that counts now."""
    credentials = secret.config.credentials("a.test")
    assert credentials is not None
    return credentials.password.reveal()


@asynccontextmanager
async def watched(path: Path) -> AsyncIterator[PullSecret]:
    """The file at *path*, watched."""
    secret = PullSecret(path)
    async with Tasks() as tasks:
        tasks.spawn(secret.watch, name="watch")
        try:
            yield secret
        finally:
            secret.stop()


def kubernetes_volume(folder: Path, name: str, text: str) -> None:
    """Write what is mounted as Kubernetes does: another folder, and one link swapped for another at once."""
    version = folder / f"..{name}"
    version.mkdir()
    (version / ".dockerconfigjson").write_text(text)
    link = folder / "..data_tmp"
    link.symlink_to(version.name)
    link.rename(folder / "..data")


async def test_a_write_in_place(tmp_path: Path) -> None:
    """As an editor or a shell does it."""
    file = tmp_path / "config.json"
    file.write_text(contents("old"))
    async with watched(file) as secret:
        assert password_in(secret) == "old"
        changed = secret.changed
        file.write_text(contents("new"))
        with anyio.fail_after(IN_TIME):
            await changed.wait()
        assert password_in(secret) == "new"


async def test_a_file_put_in_its_place(tmp_path: Path) -> None:
    """Of the same size, and with the same time: the contents count."""
    file = tmp_path / "config.json"
    file.write_text(contents("old"))
    async with watched(file) as secret:
        changed = secret.changed
        other = tmp_path / "other"
        other.write_text(contents("new"))
        state = file.stat()
        os.utime(other, ns=(state.st_atime_ns, state.st_mtime_ns))
        other.replace(file)
        with anyio.fail_after(IN_TIME):
            await changed.wait()
        assert password_in(secret) == "new"


async def test_a_volume_of_kubernetes(tmp_path: Path) -> None:
    """The file is a link through a link, and only the one in between changes, again and again."""
    kubernetes_volume(tmp_path, "1", contents("1"))
    file = tmp_path / ".dockerconfigjson"
    file.symlink_to("..data/.dockerconfigjson")
    async with watched(file) as secret:
        for version in ("2", "3"):
            changed = secret.changed
            kubernetes_volume(tmp_path, version, contents(version))
            with anyio.fail_after(IN_TIME):
                await changed.wait()
            assert password_in(secret) == version


async def test_a_link_to_a_file_elsewhere(tmp_path: Path) -> None:
    """No event tells of that change."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "config.json").write_text(contents("old"))
    here = tmp_path / "here"
    here.mkdir()
    (here / "config.json").symlink_to(elsewhere / "config.json")
    async with watched(here / "config.json") as secret:
        changed = secret.changed
        (elsewhere / "config.json").write_text(contents("new"))
        with anyio.fail_after(IN_TIME):
            await changed.wait()
        assert password_in(secret) == "new"


async def test_without_a_watch_it_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system may have no watches left."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(watchfiles.main, "RustNotify", refuse)
    file = tmp_path / "config.json"
    file.write_text(contents("old"))
    async with watched(file) as secret:
        changed = secret.changed
        file.write_text(contents("new"))
        with anyio.fail_after(IN_TIME):
            await changed.wait()
        assert password_in(secret) == "new"


@pytest.mark.parametrize("broken", ['{"auths": {"a.test": {"auth": "hunter2!"}}}', "", None])
async def test_a_file_that_gets_unusable_is_not_taken(tmp_path: Path, broken: str | None) -> None:
    """What was there before counts, the log says so once and shows nothing, and the next good one is taken."""
    file = tmp_path / "config.json"
    file.write_text(contents("old"))
    secret = PullSecret(file)
    with structlog.testing.capture_logs() as entries:
        if broken is None:
            file.unlink()
        else:
            file.write_text(broken)
        await secret._refresh()
        await secret._refresh()
    assert password_in(secret) == "old"
    assert [entry["log_level"] for entry in entries] == ["error"]
    assert "hunter2" not in repr(entries)
    file.write_text(contents("new"))
    await secret._refresh()
    assert password_in(secret) == "new"


async def test_a_fault_that_comes_back_is_logged_again(tmp_path: Path) -> None:
    """Even if the file was as before in between."""
    file = tmp_path / "config.json"
    file.write_text(contents("old"))
    secret = PullSecret(file)
    with structlog.testing.capture_logs() as entries:
        for text in ("broken", contents("old"), "broken"):
            file.write_text(text)
            await secret._refresh()
    assert [entry["log_level"] for entry in entries] == ["error", "error"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (None, "can't be read: No such file or directory"),
        ("{", "is not JSON"),
        (" " * 5_000_000, "is larger than"),
    ],
)
def test_a_file_that_is_unusable_at_the_start(tmp_path: Path, text: str | None, fault: str) -> None:
    """The configuration is checked with it."""
    file = tmp_path / "config.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(DockerConfigError, match=fault):
        PullSecret(file)


def test_a_folder_in_its_place(tmp_path: Path) -> None:
    """What is mounted wrongly is often one."""
    with pytest.raises(DockerConfigError, match="can't be read: Is a directory"):
        PullSecret(tmp_path)


async def test_stopping_takes_no_time(tmp_path: Path) -> None:
    """The thread that watches does not hold the shutdown up."""
    file = tmp_path / "config.json"
    file.write_text(contents("old"))
    async with watched(file) as secret:
        changed = secret.changed
        file.write_text(contents("new"))
        await changed.wait()
        started = anyio.current_time()
    assert anyio.current_time() - started < 0.9
