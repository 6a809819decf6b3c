"""Clones of git repositories: which commands make one, and what they are told and not told."""
