"""Clients of the workspace manager (gRPC) and of the supervisor in each workspace (HTTP)."""
