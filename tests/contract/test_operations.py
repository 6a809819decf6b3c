"""The page on operations: what it says of alerts and of the log is so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import yaml  # type: ignore[import-untyped]  # comes without types

ROOT: Final = Path(__file__).resolve().parents[2]
PAGE: Final = (ROOT / "docs" / "operations.md").read_text()
ALERTS: Final = yaml.safe_load((ROOT / "config" / "monitoring" / "alerts.yaml").read_text())


def test_every_alert_has_its_section() -> None:
    """That says what to do; and no section is left of one that is gone."""
    names = {rule["alert"] for group in ALERTS["groups"] for rule in group["rules"]}
    assert set(re.findall(r"^### (ImageBuilder\w+)$", PAGE, re.MULTILINE)) == names


def test_messages_are_those_of_the_code() -> None:
    """What the table of log lines tells to look for is logged somewhere."""
    table = PAGE.partition("## Log\n")[2].partition("\n## ")[0]
    messages = [
        message
        for cell in re.findall(r"^\| (`.+?`) \|", table, re.MULTILINE)
        for message in re.findall(r"`([^`]+)`", cell)
    ]
    assert len(messages) > 5
    code = "".join(path.read_text() for path in (ROOT / "imgbuilder").rglob("*.py"))
    assert [message for message in messages if f'"{message}"' not in code] == []
