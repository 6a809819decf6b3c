"""The file that an engine's program reads registry credentials from, for as long as one build runs."""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Final

from imgbuilder.core.permissions import Credentials
from imgbuilder.core.references import DOCKER_HUB

DOCKER_HUB_KEY: Final = "https://index.docker.io/v1/"
"""The name under which Docker's own programs look for the credentials of Docker Hub."""


@contextmanager
def credential_folder(
    scratch: Path,
    credentials: Mapping[str, Credentials],
    settings: Mapping[str, object] = MappingProxyType({}),
) -> Iterator[Path]:
    """A folder with a ``config.json`` that holds *credentials*, by registry, and *settings*; gone afterwards.

    Only the user who runs this can read it.
    """
    folder = scratch / "credentials"
    folder.mkdir(mode=0o700)
    try:
        file = os.open(folder / "config.json", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(file, "w", encoding="utf-8") as config:
            json.dump({**settings, **config_document(credentials)}, config)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def config_document(credentials: Mapping[str, Credentials]) -> dict[str, object]:
    """The contents of a Docker ``config.json`` with *credentials*. It contains secrets in the clear."""
    auths: dict[str, object] = {}
    for registry, given in sorted(credentials.items()):
        if given.anonymous:
            continue
        auths[registry] = _entry(given)
        if registry == DOCKER_HUB:
            auths[DOCKER_HUB_KEY] = auths[registry]
    return {"auths": auths}


def _entry(credentials: Credentials) -> dict[str, str]:
    text = f"{credentials.username}:{credentials.password.reveal()}"
    entry = {
        "auth": base64.b64encode(text.encode()).decode() if text != ":" else "",
        "identitytoken": credentials.identity_token.reveal(),
        "registrytoken": credentials.registry_token.reveal(),
    }
    return {name: value for name, value in entry.items() if value}
