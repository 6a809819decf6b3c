"""The command line: the one place that assembles a running service."""
