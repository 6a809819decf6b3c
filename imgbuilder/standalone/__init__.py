"""A workspace manager on one machine: it runs image builds with a build engine that the machine has.

The orchestrator meets it only as it meets a cluster: over gRPC, and over HTTP for the logs.
"""
