"""A standalone workspace manager as a whole: how it starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from imgbuilder.core.manifests import parse_platform
from imgbuilder.standalone.server import PullSecretError, running_standalone
from imgbuilder.standalone.settings import StandaloneSettings


@pytest.mark.parametrize(
    ("contents", "fault"), [(None, "can't be read: No such file or directory"), ("{", "is not JSON")]
)
async def test_credentials_that_can_not_be_used(tmp_path: Path, contents: str | None, fault: str) -> None:
    """Are told with the option's name, before anything is begun: engines are looked at for seconds."""
    file, folder = tmp_path / "config.json", tmp_path / "data"
    if contents is not None:
        file.write_text(contents)
    settings = StandaloneSettings(
        data_dir=folder, concurrency=1, platform=parse_platform("linux/amd64"), pull_secret_file=file
    )
    with pytest.raises(PullSecretError) as caught:
        async with running_standalone(settings):
            pass
    assert str(caught.value).startswith(f"--pull-secret-file: {file}: ")
    assert fault in str(caught.value)
    assert not folder.exists()
