"""Clients of OCI registries, and where their credentials come from."""
