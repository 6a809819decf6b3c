"""What cloning may do, the same for all builds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentSettings:
    """Settings of the content of workspaces.

    :ivar allow_file_urls: whether ``file://`` addresses may be cloned: they read this machine's repositories.
    :ivar secret_limit: seconds that fetching a one-time secret may take.
    """

    allow_file_urls: bool = False
    secret_limit: float = 15.0


DEFAULTS: Final = ContentSettings()
