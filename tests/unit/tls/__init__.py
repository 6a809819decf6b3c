"""Tests of TLS contexts."""
