"""The build engines of the standalone workspace manager, with programs that only pretend."""
