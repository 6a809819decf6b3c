"""Orchestrates container image builds for cloud development environments."""

__version__ = "0.1.0"
