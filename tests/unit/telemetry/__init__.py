"""Tests of logging, metrics and the endpoints that show them."""
