"""The overlays, rendered once."""

from __future__ import annotations

import pytest

from tests.deploy.rendering import KUBERNETES, OVERLAYS, Rendered, render
from tests.interop.conftest import program


@pytest.fixture(scope="session", params=OVERLAYS)
def rendered(request: pytest.FixtureRequest) -> Rendered:
    """Each overlay's objects."""
    folder = KUBERNETES / "overlays" / request.param
    return Rendered(overlay=request.param, objects=render(program("kustomize"), folder))
