"""What surrounds the service, in one process: workspace manager, supervisors and registries that behave.

And that misbehave on demand. ``python -m tests.world`` runs all of it.
"""
