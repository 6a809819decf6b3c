"""Docker's config.json: whose credentials for a registry are in it, or which program has them.

Reads its contents, and neither files nor programs: see `imgbuilder.registry.pullsecret` and
`imgbuilder.registry.helpers`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import orjson

from imgbuilder.core.errors import ImgbuilderError
from imgbuilder.core.permissions import Credentials, basic_credentials, decode_base64
from imgbuilder.core.references import DOCKER_HUB, LEGACY_DOCKER_HUB
from imgbuilder.core.secrets import Secret
from imgbuilder.registry.endpoints import DOCKER_HUB_HOST

T = TypeVar("T")

DOCKER_HUB_KEY: Final = "https://index.docker.io/v1/"
"""What Docker calls its Hub in config.json, and to helper programs, for historic reasons."""

_SCHEME: Final = re.compile(r"^https?://")
_HELPER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class DockerConfigError(ImgbuilderError):
    """A config.json can't be used. Says nothing of its contents but the names of registries.

    :ivar fault: what is wrong, as words that can follow the file's name.
    """

    def __init__(self, fault: str) -> None:
        super().__init__(fault)
        self.fault = fault


@dataclass(frozen=True, slots=True, kw_only=True)
class Helper:
    """A program that has credentials.

    :ivar name: of the program ``docker-credential-<name>``.
    :ivar server: what to ask it for.
    """

    name: str
    server: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerConfig:
    """The parts of a config.json that tell credentials; all by host, as references spell it."""

    auths: Mapping[str, Credentials] = field(default_factory=dict)
    helpers: Mapping[str, Helper] = field(default_factory=dict)
    store: str = ""

    def credentials(self, registry: str) -> Credentials | None:
        """Those that stand in it for *registry*."""
        return self.auths.get(registry.lower())

    def helper(self, registry: str) -> Helper | None:
        """The program that has those for *registry*. It comes before what stands in the file."""
        own = self.helpers.get(registry.lower())
        if own is not None or not self.store:
            return own
        return Helper(name=self.store, server=DOCKER_HUB_KEY if registry == DOCKER_HUB else registry)


def parse_docker_config(contents: bytes) -> DockerConfig:
    """What the *contents* of a config.json say.

    :raises DockerConfigError: if they are not understood, even in part.
    """
    try:
        document = orjson.loads(contents)
    except orjson.JSONDecodeError:
        # Without its cause, whose text and attributes have pieces of the file.
        raise DockerConfigError("is not JSON") from None
    if not isinstance(document, dict):
        raise DockerConfigError("is no JSON object")
    auths = _by_host(document, "auths", _credentials)
    return DockerConfig(
        auths={host: found for host, found in auths.items() if not found.anonymous},
        helpers=_by_host(document, "credHelpers", _helper),
        store=_helper("", document["credsStore"]).name if document.get("credsStore") else "",
    )


def host_of(key: str) -> str:
    """The host that a key of config.json means: keys may be addresses, and Docker Hub has several names."""
    host = _SCHEME.sub("", key.strip()).partition("/")[0].lower()
    return DOCKER_HUB if host in {LEGACY_DOCKER_HUB, DOCKER_HUB_HOST} else host


def _by_host(document: dict[str, Any], section: str, read: Callable[[str, Any], T]) -> dict[str, T]:
    entries = document.get(section) or {}
    if not isinstance(entries, dict):
        raise DockerConfigError(f"{section} is no JSON object")
    found: dict[str, T] = {}
    for key, entry in entries.items():
        if not entry:
            continue  # Docker leaves an empty entry where a helper program has the credentials.
        host = host_of(key)
        # Of several keys for one host, the plain one counts.
        if host not in found or key == host:
            found[host] = read(key, entry)
    return found


def _credentials(key: str, entry: Any) -> Credentials:
    texts = {}
    for name in ("auth", "username", "password", "identitytoken", "registrytoken"):
        value = entry.get(name, "") if isinstance(entry, dict) else None
        if not isinstance(value, str):
            raise DockerConfigError(f"auths[{key}] is not as Docker writes it")
        texts[name] = value
    username, password = texts["username"], texts["password"]
    if texts["auth"]:
        username, password = _split(key, texts["auth"])
    pair = basic_credentials(username, password) if username or password else Credentials()
    return Credentials(
        username=username,
        password=Secret(password),
        identity_token=Secret(texts["identitytoken"]),
        registry_token=Secret(texts["registrytoken"]),
        auth=pair.auth,
    )


def _split(key: str, auth: str) -> tuple[str, str]:
    decoded = decode_base64(auth)
    if decoded is None:
        raise DockerConfigError(f"auths[{key}].auth is not base64")
    # At the first colon, as Docker does; what a request brings along is split at the last.
    username, colon, password = decoded.decode(errors="replace").partition(":")
    if not colon:
        raise DockerConfigError(f"auths[{key}].auth is not base64 of user:password")
    return username, password.strip("\0")


def _helper(key: str, name: Any) -> Helper:
    if not isinstance(name, str) or not _HELPER.fullmatch(name):
        raise DockerConfigError(f"{f'credHelpers[{key}]' if key else 'credsStore'} is no name of a helper")
    return Helper(name=name, server=DOCKER_HUB_KEY if host_of(key) == DOCKER_HUB else key)
