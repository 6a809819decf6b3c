"""A client of any builder.ImageBuilder server: calls, and how answers are shown."""
