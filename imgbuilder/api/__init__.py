"""What clients talk to: the gRPC services and how errors become statuses."""
