"""What holds where nothing was told."""

from __future__ import annotations

from pathlib import Path

from imgbuilder.standalone.settings import default_concurrency, default_data_dir, default_platform


def test_state_is_where_it_belongs() -> None:
    """By the XDG rules, which want an absolute path."""
    assert default_data_dir({"XDG_STATE_HOME": "/s"}) == Path("/s/imgbuilder/standalone")
    home = Path.home() / ".local/state/imgbuilder/standalone"
    assert default_data_dir({}) == default_data_dir({"XDG_STATE_HOME": "relative"}) == home
    assert default_data_dir().name == "standalone"


def test_as_many_builds_as_processors() -> None:
    """At least one."""
    assert default_concurrency() >= 1


def test_images_are_for_this_machine() -> None:
    """In the words that indexes use."""
    platform = default_platform()
    assert platform.os == "linux"
    assert platform.architecture not in {"x86_64", "aarch64"}
