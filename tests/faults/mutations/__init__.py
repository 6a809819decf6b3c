"""Mechanisms switched off, one at a time, each with a test that must fail then: what the tests are worth.

``python -m tests.faults.mutations`` switches each off in turn and shows which are missed by whom, those of the
simulation included (`tests.faults.simulation.mutations`); names as arguments choose some. ``--write`` writes
the table of `docs/guarantees.md`. None of it is in the service.
"""
