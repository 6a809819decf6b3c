"""Measures the running service over its wire, from other processes, beside floors taken in the same run.

``make bench`` is the way in. A scenario (`tests.bench.scenarios`) measures some rows of the table; everything it
needs it gets from a `tests.bench.stage.Stage`: a world, a service, a load generator and bare servers, each a
process of its own, so that none of them waits for another's interpreter.
"""
