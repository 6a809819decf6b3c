"""The tests, and the world they happen in."""
