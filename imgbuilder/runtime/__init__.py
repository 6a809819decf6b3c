"""What every part runs on: ownership of tasks, lifecycle, TLS, the gRPC transport."""
