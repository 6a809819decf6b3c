"""The configuration: its settings, how a file becomes one, and what can be wrong with it."""

from imgbuilder.config.files import client_files, server_files
from imgbuilder.config.loading import Loaded, load, parse
from imgbuilder.config.model import Config
from imgbuilder.config.problems import ConfigError, Fault
from imgbuilder.config.schema import json_schema

__all__ = [
    "Config",
    "ConfigError",
    "Fault",
    "Loaded",
    "client_files",
    "json_schema",
    "load",
    "parse",
    "server_files",
]
