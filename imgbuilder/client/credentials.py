"""Which credentials go with a request: what ``--auth`` and ``--auth-file`` say, as the contract's message.

Secrets come out of files and variables, never off a command line, which others can read; no error shows one.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from imgbuilder.client.errors import InvalidOptionError
from imgbuilder.core.references import InvalidReferenceError, parse_reference
from imgbuilder.core.secrets import Secret
from imgbuilder.pb.builder import BuildRegistryAuth, BuildRegistryAuthSelective, BuildRegistryAuthTotal
from imgbuilder.registry.dockerconfig import DockerConfigError, parse_docker_config

ALL: Final = "all"
BASE: Final = "base"
WORKSPACE: Final = "workspace"
_PLACE: Final = re.compile(r"(?P<kind>env|file):(?P<name>.+)", re.DOTALL)
_HOW: Final = "give the credentials as env:VARIABLE or file:PATH with user:password in it"
LARGEST_FILE: Final = 1 << 20


def auth_of(
    grants: Iterable[str],
    *,
    file: str = "",
    environment: Mapping[str, str] = os.environ,
) -> BuildRegistryAuth | None:
    """What a request may use: each of *grants* is one of these.

    - ``all``: all credentials that the service has;
    - ``base``, ``workspace``: those it has for the registry of its base or workspace images;
    - a registry, such as ``ghcr.io``: those it has for that one;
    - ``REGISTRY=env:VARIABLE``, ``REGISTRY=file:PATH``: credentials of our own.

    :param file: with credentials of our own, as Docker's config.json has them; empty for none.
    :raises InvalidOptionError: if there are no such credentials, or they can't be sent.
    """
    total = False
    selective = BuildRegistryAuthSelective()
    additional = _from_docker(file) if file else {}
    for grant in grants:
        registry, brings, place = grant.partition("=")
        if brings:
            own = login_of(place, f"--auth {registry}", environment)
            additional[_registry(registry)] = _encoded(own, f"--auth {registry}")
        elif grant == ALL:
            total = True
        elif grant == BASE:
            selective.allow_baserep = True
        elif grant == WORKSPACE:
            selective.allow_workspacerep = True
        else:
            selective.any_of.append(_registry(grant))
    selected = selective.allow_baserep or selective.allow_workspacerep or bool(selective.any_of)
    if total:  # has everything that could be selected
        return BuildRegistryAuth(total=BuildRegistryAuthTotal(allow_all=True), additional=additional)
    if selected:
        return BuildRegistryAuth(selective=selective, additional=additional)
    return BuildRegistryAuth(additional=additional) if additional else None


def login_of(place: str, option: str, environment: Mapping[str, str] = os.environ) -> Secret:
    """The ``user:password`` in *place*: ``env:VARIABLE`` or ``file:PATH``.

    :param option: what it was given for, for errors.
    :raises InvalidOptionError: if there is none.
    """
    match = _PLACE.fullmatch(place)
    if match is None:
        raise InvalidOptionError(option, _HOW)
    name = match["name"]
    if match["kind"] == "env":
        if name not in environment:
            raise InvalidOptionError(option, f"the variable {name} is not set")
        text = environment[name]
    else:
        text = _read(name, option).decode(errors="replace")
    login = text.strip("\r\n")
    if ":" not in login:
        raise InvalidOptionError(option, f"{place} does not hold user:password")
    return Secret(login)


def _from_docker(file: str) -> dict[str, str]:
    option = "--auth-file"
    try:
        config = parse_docker_config(_read(file, option))
    except DockerConfigError as error:
        raise InvalidOptionError(option, f"{file}: {error}") from error
    sent = {
        host: _encoded(Secret(f"{one.username}:{one.password.reveal()}"), f"{option}: {file}: {host}")
        for host, one in config.auths.items()
        if one.username
    }
    if not sent:
        elsewhere = "a program has them: see " if config.helpers or config.store else "see "
        raise InvalidOptionError(
            option, f"{file} holds no user with a password; {elsewhere}--auth REGISTRY=env:…"
        )
    return sent


def _encoded(login: Secret, option: str) -> str:
    """*login* as it is sent. The contract splits it at the last colon."""
    if login.reveal().count(":") > 1:
        raise InvalidOptionError(option, "a password with a colon in it can't be sent to an image builder")
    return base64.b64encode(login.reveal().encode()).decode()


def _registry(text: str) -> str:
    try:
        registry = parse_reference(f"{text}/image").domain if "/" not in text else ""
    except InvalidReferenceError:
        registry = ""
    if registry != text or not text:
        shown = text if text.isprintable() and "@" not in text else "…"
        fault = (
            f"{shown!r} is none of all, base, workspace, and no registry such as ghcr.io or localhost:5000"
        )
        raise InvalidOptionError("--auth", fault)
    return registry


def _read(name: str, option: str) -> bytes:
    try:
        with Path(name).open("rb") as file:
            return file.read(LARGEST_FILE)
    except OSError as error:
        raise InvalidOptionError(option, f"{name} cannot be read: {error.strerror}") from error
