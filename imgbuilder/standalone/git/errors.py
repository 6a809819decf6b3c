"""Why content could not be had, in words that its user can act on.

git says what went wrong in English only; which of its words mean what stands here.
"""

from __future__ import annotations

import re
from typing import Final

from imgbuilder.core.errors import ImgbuilderError

LONGEST_FAULT: Final = 400


class ContentError(ImgbuilderError):
    """The content of a workspace can't be had; the text is for the user, without credentials."""


class CloneError(ContentError):
    """A repository can't be cloned.

    :ivar fault: why.
    """

    def __init__(self, address: str, fault: str) -> None:
        super().__init__(f"cannot clone {address}: {fault}")
        self.fault = fault


class UnknownRevisionError(CloneError):
    """The repository does not have the commit or branch that was asked for."""


_UNKNOWN_REVISION: Final = re.compile(
    r"not our ref|unadvertised object|Remote branch .* not found|couldn't find remote ref"
    r"|is not a commit|did not match any file|reference is not a tree|bad object|unknown revision"
    r"|is not a valid object name|not a valid branch name|Needed a single revision",
)

_FAULTS: Final = (
    # Some servers refuse the unknown and the forbidden with the same words: the order matters little then.
    (
        r"could not read (?:Username|Password)|terminal prompts disabled",
        "it asks for credentials, and none were given",
    ),
    (r"Authentication failed|HTTP Basic: Access denied|error: 401", "the credentials were refused"),
    (r"error: 403", "access is forbidden"),
    (
        r"repository '[^']*' not found|error: 404|does not appear to be a git repository|does not exist",
        "repository not found",
    ),
    (r"Could not resolve host", "its host is not known"),
    (
        r"Failed to connect|Couldn't connect|Connection (?:refused|reset|timed out)|Could not connect",
        "its host can't be reached",
    ),
    (
        r"SSL certificate|certificate verif|server certificate|SSL_|gnutls",
        "its certificate can't be verified",
    ),
    (r"Operation too slow|timed out", "it takes too long to answer"),
    (r"transport '[^']*' not allowed", "this kind of address is not allowed"),
    (r"No space left on device|Disk quota exceeded", "no space left on this machine"),
    (r"remote HEAD refers to nonexistent ref|empty repository", "the repository is empty"),
)


def clone_error(address: str, revision: str, said: str) -> CloneError:
    """What git means by what it said last.

    :param address: of the repository, without credentials.
    :param revision: the commit or branch asked for; empty for the default branch.
    """
    if _UNKNOWN_REVISION.search(said) is not None:
        return UnknownRevisionError(address, f"unknown revision {revision!r}")
    for words, fault in _FAULTS:
        if re.search(words, said, re.IGNORECASE) is not None:
            return CloneError(address, fault)
    lines = [line for line in re.split(r"[\r\n]+", said) if line.startswith(("fatal: ", "error: "))]
    fault = lines[-1].partition(": ")[2][:LONGEST_FAULT] if lines else "git failed"
    return CloneError(address, fault)
