"""YAML as data."""

from __future__ import annotations

from typing import Any

import yaml  # type: ignore[import-untyped]  # comes without types

Document = dict[str, Any]


def documents(text: str) -> list[Document]:
    """The documents that *text* has."""
    return [document for document in yaml.safe_load_all(text) if document is not None]
