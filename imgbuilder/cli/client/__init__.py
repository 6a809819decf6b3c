"""Commands that ask a running image builder: imported when they are used, never by a service."""
