"""Tests of the clients of the workspace manager and the supervisor."""
