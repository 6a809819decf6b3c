"""Tests of the test world: that it behaves, and misbehaves, as it says."""
