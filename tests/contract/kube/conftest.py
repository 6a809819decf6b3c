"""A cluster, and a kubeconfig that leads to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.world.certificates import Authority
from tests.world.kube import Kubernetes


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Whom all trust here."""
    return Authority(tmp_path_factory.mktemp("cluster"))


@pytest.fixture
async def kubernetes(authority: Authority) -> AsyncIterator[Kubernetes]:
    """A cluster that serves."""
    async with Kubernetes(authority) as kubernetes:
        yield kubernetes


@pytest.fixture
def kubeconfig(kubernetes: Kubernetes, tmp_path: Path) -> Path:
    """A kubeconfig with one context, ``dev``, whose user has a token."""
    return kubernetes.kubeconfig(tmp_path / "kubeconfig")
