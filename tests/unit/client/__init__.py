"""A client of an image builder, without one."""
