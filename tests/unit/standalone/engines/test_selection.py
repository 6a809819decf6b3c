"""Which engine is used."""

from __future__ import annotations

from pathlib import Path

import pytest

from imgbuilder.standalone.engines.protocol import (
    BuildRequest,
    Capabilities,
    EngineSettings,
    OciLayout,
    Output,
    Unavailable,
)
from imgbuilder.standalone.engines.selection import (
    ENGINES,
    Selection,
    UnknownEngineError,
    first_that_works,
    select_engine,
)
from tests.unit.standalone.engines.programs import Programs

NOT_HERE = Unavailable(reason="not here", hint="put it here")


class FakeEngine:
    """Is there, or is not."""

    def __init__(self, name: str, *, there: bool) -> None:
        self.name = name
        self.there = there
        self.probed = 0

    async def probe(self) -> Capabilities | Unavailable:
        """Tell."""
        self.probed += 1
        if not self.there:
            return NOT_HERE
        return Capabilities(name=self.name, version="1", isolation="some", limits=True, bounded_cache=True)

    async def build(self, request: BuildRequest, output: Output) -> OciLayout:
        """Build nothing."""
        raise NotImplementedError

    async def sweep(self) -> None:
        """Sweep nothing."""


async def test_the_first_that_works_is_used() -> None:
    """Those after it are not even asked; why those before it are not used is told."""
    engines = [FakeEngine("a", there=False), FakeEngine("b", there=True), FakeEngine("c", there=True)]
    found = await first_that_works(engines)
    assert found.engine is engines[1]
    assert found.capabilities is not None
    assert found.capabilities.name == "b"
    assert found.unavailable == {"a": NOT_HERE}
    assert [engine.probed for engine in engines] == [1, 1, 0]


async def test_there_may_be_none() -> None:
    """Then all the reasons are told."""
    engines = [FakeEngine("a", there=False), FakeEngine("b", there=False)]
    expected = Selection(engine=None, capabilities=None, unavailable={"a": NOT_HERE, "b": NOT_HERE})
    assert await first_that_works(engines) == expected


def test_the_order_is_that_of_what_people_have() -> None:
    """And the names are those of the command line."""
    assert list(ENGINES) == ["docker", "podman", "buildkit", "buildah"]


async def test_an_unknown_choice_is_an_error(settings: EngineSettings) -> None:
    """With the names that there are."""
    with pytest.raises(UnknownEngineError, match="'kaniko': there are docker, podman, buildkit, buildah"):
        await select_engine("kaniko", settings)


async def test_a_choice_is_the_only_one_tried(programs: Programs, settings: EngineSettings) -> None:
    """Others are not used in its place."""
    programs.add("docker", "exit 1\n")
    found = await select_engine("buildah", settings)
    assert found.engine is None
    assert list(found.unavailable) == ["buildah"]
    assert programs.calls == []


async def test_what_any_engine_left_is_swept(programs: Programs, settings: EngineSettings) -> None:
    """Also of one that is not used any more."""
    left: list[Path] = []
    for name in ENGINES:
        left.append(settings.data_dir / "engines" / name / "probes" / "probe-x")
        left[-1].mkdir(parents=True)
    await select_engine("buildkit", settings)
    assert [folder.exists() for folder in left] == [False] * len(ENGINES)
    assert programs.calls == []
