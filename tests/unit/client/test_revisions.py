"""Which commit a branch or tag is now."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from imgbuilder.client.revisions import pinned
from imgbuilder.client.sources import Wanted


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with a commit on ``main``, one on ``dev``, and tags of two kinds."""
    folder = tmp_path / "repository"
    git(tmp_path, "init", "--quiet", "--initial-branch=main", str(folder))
    for branch in ("main", "dev"):
        git(folder, "checkout", "--quiet", "-B", branch)
        git(folder, "commit", "--quiet", "--allow-empty", "-m", branch)
    git(folder, "tag", "light")
    git(folder, "tag", "-a", "-m", "text", "heavy")
    git(folder, "checkout", "--quiet", "main")
    return folder


def git(folder: Path, *arguments: str) -> str:
    """What git says."""
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.com")
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("revision", "commit"),
    [("", "main"), ("main", "main"), ("dev", "dev"), ("light", "dev"), ("heavy", "dev")],
)
def test_a_name_becomes_its_commit(repository: Path, revision: str, commit: str) -> None:
    """Of branches, tags, and HEAD; of a folder and of an address."""
    expected = git(repository, "rev-parse", commit)
    for remote in (str(repository), repository.as_uri()):
        assert pinned(Wanted(git=remote, revision=revision)).revision == expected


@pytest.mark.parametrize(
    "wanted",
    [
        Wanted(ref="ubuntu"),
        Wanted(git="{repository}", revision="0123456"),
        Wanted(git="{repository}", revision="nothing"),
        Wanted(git="{repository}", revision="main", dockerfile_version="7"),
        Wanted(git="/no/such", revision="main"),
        Wanted(git="--upload-pack=touch hacked", revision="main"),
        Wanted(git="ext::sh -c touch% hacked", revision="main"),
        Wanted(git="\0", revision="main"),
    ],
)
def test_what_can_not_be_told_stays(
    wanted: Wanted, repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And what is known already; nothing is run but git."""
    monkeypatch.chdir(tmp_path)
    if wanted.git == "{repository}":
        wanted = Wanted(
            git=str(repository), revision=wanted.revision, dockerfile_version=wanted.dockerfile_version
        )
    assert pinned(wanted) == wanted
    assert not (tmp_path / "hacked").exists()


def test_without_git(repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The name has to do."""
    monkeypatch.setenv("PATH", str(tmp_path))
    wanted = Wanted(git=str(repository), revision="main")
    assert pinned(wanted) == wanted
