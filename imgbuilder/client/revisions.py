"""Which commit a branch or tag is now, as git on this machine finds out.

Services go by the name of a revision: of a branch that has moved, they would say that its image exists already.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from typing import Final

from imgbuilder.client.sources import Wanted, is_commit

LIMIT: Final = 10.0
"""Seconds that git may take."""


def pinned(wanted: Wanted) -> Wanted:
    """*wanted* with the commit that its revision is now. The same where that is one, or can't be told.

    It can't where git is not installed, or the repository can't be reached from here without being asked for a
    password: the service may reach it all the same. Blocks.
    """
    if not wanted.git or wanted.dockerfile_version or is_commit(wanted.revision):
        return wanted
    commit = commit_of(wanted.git, wanted.revision)
    return replace(wanted, revision=commit) if commit else wanted


def commit_of(remote: str, revision: str) -> str:
    """The commit that *revision* is in the repository at *remote*; empty if it can't be told.

    :param revision: a branch or tag; empty for the repository's HEAD.
    """
    # In the order in which they count; of a tag with a text of its own, what it stands on is the commit.
    names = [f"refs/heads/{revision}", f"refs/tags/{revision}^{{}}", f"refs/tags/{revision}"]
    if not revision:
        names = ["HEAD"]
    command = ["git", "-c", "protocol.ext.allow=never", "ls-remote", "--quiet", "--", remote, *names]
    try:
        done = subprocess.run(  # noqa: S603  # no shell, and names can't be options
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
            timeout=LIMIT,
            env={
                **os.environ,
                "GIT_TERMINAL_PROMPT": "0",
                "GIT_ASKPASS": "true",
                "GIT_SSH_COMMAND": "ssh -o BatchMode=yes",
            },
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return ""
    lines = (line.partition("\t") for line in done.stdout.splitlines())
    found = {name: commit for commit, _, name in lines}
    return next((found[name] for name in names if name in found), "")
