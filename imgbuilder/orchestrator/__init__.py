"""Use cases and the live state: resolve, build, watch, track, logs."""
