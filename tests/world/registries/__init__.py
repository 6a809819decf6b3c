"""Registries for tests: Debian's real one in its ways of authenticating, one of our own that misbehaves, and AWS."""
