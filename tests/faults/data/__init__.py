"""Hostile data against a service that runs as a process: endless, huge, deep, and what terminals should not print.

What takes long is scaled down. ``HOSTILE_DATA=full`` is the real thing, a minute or so of it: 1 GiB without a
line feed, 10 million lines; with ``-s`` it tells figures.
"""
