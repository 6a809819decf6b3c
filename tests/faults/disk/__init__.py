"""A disk that is full, read-only or emptied under a service that runs as a process."""
