"""The gRPC transport: grpclib with limits, our codec, and data frames written in one go."""
