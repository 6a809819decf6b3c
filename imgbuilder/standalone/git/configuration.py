"""What git is told besides its arguments: its environment, and settings, which it takes from there.

Neither the settings of this machine nor those of the user who runs this are read: they could name programs to
run, and credentials that are nobody else's. Nothing that is set here ends up in the clone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from imgbuilder.standalone.git.addresses import Login
from imgbuilder.standalone.processes import environment

USER_VARIABLE: Final = "IMGBUILDER_GIT_USER"
PASSWORD_VARIABLE: Final = "IMGBUILDER_GIT_PASSWORD"  # noqa: S105  # a name

_HELPER: Final = (
    f'!f() {{ test "$1" = get && printf "username=%s\\npassword=%s\\n" "${USER_VARIABLE}" "${PASSWORD_VARIABLE}";'
    " }; f"
)
"""Answers git's question for credentials. In the shell itself: they are on no command line."""

_ALWAYS: Final = (
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("credential.helper", ""),
    ("submodule.recurse", "false"),
    ("fetch.recurseSubmodules", "false"),
    ("gc.auto", "0"),  # goes on in the background
    ("maintenance.auto", "false"),
    ("init.defaultBranch", "main"),
    ("advice.detachedHead", "false"),
    # bytes a second, and for how many seconds: a server that stopped answering
    ("http.lowSpeedLimit", "1000"),
    ("http.lowSpeedTime", "60"),
)

_HARMLESS: Final = re.compile(
    r"""
    user\.(?:name|email)
    | core\.(?:autocrlf|eol|safecrlf|filemode|symlinks|ignorecase|longpaths|precomposeunicode|quotepath
        |compression|bigfilethreshold|packedgit\w+|protectntfs|protecthfs)
    | http\.(?:.+\.)?(?:extraheader|useragent|version|postbuffer|maxrequests|minsessions|sslverify|sslversion
        |followredirects|lowspeedlimit|lowspeedtime|emptyauth)
    | url\..+\.insteadof
    | init\.defaultbranch | fetch\.(?:fsckobjects|parallel|unpacklimit|prune|prunetags)
    | pack\.(?:threads|windowmemory|deltacachesize) | index\.(?:threads|version)
    | transfer\.(?:fsckobjects|unpacklimit) | checkout\.(?:workers|thresholdforparallelism)
    | (?:advice|color|pull|push|branch|feature|i18n|status|log|diff\.(?:algorithm|renames))\b.*
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""Settings that a request may bring: none of them has git run a program or read or write another file."""

_NOT_HARMLESS: Final = re.compile(r"color\.pager|.*(?:command|program|textconv|external)$", re.IGNORECASE)


def is_harmless(name: str) -> bool:
    """Whether a request may set the setting *name*."""
    return _HARMLESS.fullmatch(name) is not None and _NOT_HARMLESS.fullmatch(name) is None


def git_environment(
    workspace: Path,
    *,
    origin: str,
    login: Login | None,
    custom: Mapping[str, str],
    allow_file_urls: bool,
) -> dict[str, str]:
    """The environment of every git command of a clone.

    :param workspace: on whose behalf it runs.
    :param origin: the only server that is shown *login*, whatever redirects say.
    :param custom: settings of the request, all of them harmless.
    """
    settings = [*_ALWAYS, *custom.items()]
    secrets = {}
    if login is not None:
        settings.append((f"credential.{origin}.helper", _HELPER))
        secrets = {USER_VARIABLE: login.user, PASSWORD_VARIABLE: login.password.reveal()}
    return environment(
        workspace,
        passed_on=("GIT_SSL_CAINFO", "GIT_SSL_CAPATH"),
        **{
            "HOME": "/nonexistent",  # where .netrc is looked for
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_LFS_SKIP_SMUDGE": "1",
            "GIT_ALLOW_PROTOCOL": "https:http:file" if allow_file_urls else "https:http",
            **_numbered(settings),
            **secrets,
        },
    )


def _numbered(settings: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Settings as git takes them from its environment."""
    variables = {}
    count = 0
    for name, value in settings:
        variables[f"GIT_CONFIG_KEY_{count}"] = name
        variables[f"GIT_CONFIG_VALUE_{count}"] = value
        count += 1
    return {**variables, "GIT_CONFIG_COUNT": str(count)}
