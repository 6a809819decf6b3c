"""The standalone workspace manager."""
