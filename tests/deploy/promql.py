"""The metrics that a PromQL expression asks for, and by which labels: enough to see that they exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

TEXT: Final = re.compile(r'"(?:[^"\\]|\\.)*"' + r"|'(?:[^'\\]|\\.)*'|`[^`]*`")
TEXT_IS_HERE: Final = '""'
RANGE: Final = re.compile(r"\[[^\]]*\]")
LABELS: Final = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
SELECTOR: Final = re.compile(r"([A-Za-z_:][\w:]*)?\s*\{([^}]*)\}")
NUMBER: Final = re.compile(r"\b[0-9][\w.]*")
"""Also a duration: ``5m``."""
NAME: Final = re.compile(r"[A-Za-z_:][\w:]*\b(?!\s*\()")
OPERATORS: Final = {"and", "or", "unless", "bool", "offset", "by", "without", "on", "ignoring", "inf", "nan"}


def metrics_in(expression: str) -> set[str]:
    """The names of metrics in *expression*."""
    plain = NUMBER.sub("", RANGE.sub("", TEXT.sub(TEXT_IS_HERE, expression)))
    plain = SELECTOR.sub(lambda match: f" {match[1] or ''} ", LABELS.sub(" ", plain))
    return {name for name in NAME.findall(plain) if name.lower() not in OPERATORS}


def labels_in(expression: str) -> set[str]:
    """The names of labels that *expression* selects or groups by."""
    plain = TEXT.sub(TEXT_IS_HERE, expression)
    return set(_grouped(plain)) | set(_selected(plain))


def _grouped(plain: str) -> Iterator[str]:
    for names in LABELS.findall(plain):
        yield from re.findall(r"\w+", names)


def _selected(plain: str) -> Iterator[str]:
    for _, matchers in SELECTOR.findall(plain):
        yield from re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers)
