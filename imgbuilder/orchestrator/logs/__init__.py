"""One log per build: followed at the workspace's supervisor, kept in memory and on disk, read by any number."""

from imgbuilder.orchestrator.logs.keeper import LogKeeper
from imgbuilder.orchestrator.logs.reader import LogReader
from imgbuilder.orchestrator.logs.settings import LogSettings

__all__ = ["LogKeeper", "LogReader", "LogSettings"]
