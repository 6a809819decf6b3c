"""The lock file of the service's image: a part of the one that everything here is tested with."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).parents[2]
LEFT_OUT: Final = {"kubernetes-asyncio"}
"""Of what the project depends on: only commands that are run elsewhere speak to a cluster."""


def locked(file: str) -> dict[str, tuple[str, frozenset[str]]]:
    """The version and the hashes of each package in a lock file."""
    text = (ROOT / file).read_text()
    entries = re.findall(r"^([a-z0-9.-]+)==([^ ;\\]+)(.*(?:\\\n.*)*)", text, re.MULTILINE)
    return {
        name: (version, frozenset(re.findall(r"sha256:[0-9a-f]+", rest))) for name, version, rest in entries
    }


def needed() -> Iterator[str]:
    """The packages that the service needs, and those that these need, by what is installed here."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    waiting = [Requirement(line) for line in (*project["dependencies"], *extras["speed"], *extras["tracing"])]
    seen = set()
    while waiting:
        requirement = waiting.pop()
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key in seen or key[0] in LEFT_OUT:
            continue
        seen.add(key)
        yield key[0]
        for line in distribution(requirement.name).requires or ():
            further = Requirement(line)
            environments = [{"extra": extra} for extra in (*requirement.extras, "")]
            if further.marker is None or any(map(further.marker.evaluate, environments)):
                waiting.append(further)


def test_the_image_has_what_is_tested_here() -> None:
    """The same versions with the same hashes; `make lock` makes both files."""
    everything, service = locked("requirements.lock"), locked("requirements-service.lock")
    assert len(service) > 40
    assert {name: entry for name, entry in service.items() if everything.get(name) != entry} == {}


def test_the_image_has_all_that_the_service_needs() -> None:
    """Also what its dependencies depend on."""
    assert set(needed()) - locked("requirements-service.lock").keys() == set()


def test_the_image_has_no_tools_of_developers() -> None:
    """Nor the library for clusters."""
    assert (
        not {"pytest", "mypy", "moto", "matplotlib", *LEFT_OUT} & locked("requirements-service.lock").keys()
    )
