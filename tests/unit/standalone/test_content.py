"""What a workspace is filled with."""

from __future__ import annotations

from pathlib import Path

import pytest

from imgbuilder.pb.contentservice import (
    CompositeInitializer,
    EmptyInitializer,
    FileDownloadInitializer,
    FromBackupInitializer,
    GitInitializer,
    PrebuildInitializer,
    SnapshotInitializer,
    WorkspaceInitializer,
)
from imgbuilder.standalone.content import ContentError, prepare_content
from imgbuilder.standalone.git.errors import UnknownRevisionError, clone_error
from imgbuilder.standalone.processes import Tail


@pytest.mark.parametrize(
    "initializer",
    [None, WorkspaceInitializer(), WorkspaceInitializer(empty=EmptyInitializer())],
)
async def test_an_empty_initializer_fills_in_nothing(
    initializer: WorkspaceInitializer | None, tmp_path: Path
) -> None:
    """Nor does none at all; nothing is said about it."""
    said = Tail()
    await prepare_content(initializer, tmp_path, said)
    assert said.text() == ""
    assert not any(tmp_path.iterdir())  # noqa: ASYNC240  # a folder of two entries


@pytest.mark.parametrize(
    ("initializer", "name"),
    [
        (WorkspaceInitializer(snapshot=SnapshotInitializer()), "snapshot"),
        (WorkspaceInitializer(prebuild=PrebuildInitializer()), "prebuild"),
        (WorkspaceInitializer(composite=CompositeInitializer()), "composite"),
        (WorkspaceInitializer(download=FileDownloadInitializer()), "download"),
        (WorkspaceInitializer(backup=FromBackupInitializer()), "backup"),
    ],
)
async def test_others_are_refused_by_name(
    initializer: WorkspaceInitializer, name: str, tmp_path: Path
) -> None:
    """Saying who does not support them."""
    with pytest.raises(ContentError) as failed:
        await prepare_content(initializer, tmp_path, Tail())
    expected = f"the {name} initializer is not supported by the standalone workspace manager"
    assert str(failed.value) == expected


async def test_says_when_git_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody has to install it."""
    monkeypatch.setattr("imgbuilder.standalone.processes.FOLDERS", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    initializer = WorkspaceInitializer(git=GitInitializer(remote_uri="https://example.com/project"))
    with pytest.raises(ContentError, match="cannot clone: git is not installed"):
        await prepare_content(initializer, tmp_path, Tail())


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ("fatal: Authentication failed for 'https://example.com/'", "the credentials were refused"),
        (
            "fatal: unable to access 'https://x/': Could not resolve host: x",
            "its host is not known",
        ),
        (
            "fatal: unable to access 'https://x/': server certificate verification failed. CAfile: none",
            "its certificate can't be verified",
        ),
        (
            "fatal: unable to access 'https://x/': The requested URL returned error: 403",
            "access is forbidden",
        ),
        ("error: RPC failed; curl 28 Operation too slow. Less than 1000", "it takes too long to answer"),
        ("fatal: write error: No space left on device", "no space left on this machine"),
        ("fatal: transport 'ftp' not allowed", "this kind of address is not allowed"),
        ("Receiving objects: 1%\rerror: foo\nfatal: the remote end hung up\n", "the remote end hung up"),
        ("", "git failed"),
    ],
)
def test_what_git_says_is_told_in_plain_words(said: str, fault: str) -> None:
    """So that its user knows what to do about it."""
    error = clone_error("https://x/", "", said)
    assert error.fault == fault
    assert str(error) == f"cannot clone https://x/: {fault}"


@pytest.mark.parametrize(
    "said",
    [
        "fatal: Remote branch nope not found in upstream origin",
        "fatal: couldn't find remote ref nope",
        "fatal: remote error: upload-pack: not our ref nope",
        "error: Server does not allow request for unadvertised object nope",
        "fatal: reference is not a tree: nope",
    ],
)
def test_unknown_revisions_are_recognized(said: str) -> None:
    """However the server puts it."""
    error = clone_error("https://x/", "nope", said)
    assert isinstance(error, UnknownRevisionError)
    assert error.fault == "unknown revision 'nope'"
