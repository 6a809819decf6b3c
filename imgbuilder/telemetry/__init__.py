"""Structured logging with redaction, metrics, and the HTTP endpoints that show them."""
