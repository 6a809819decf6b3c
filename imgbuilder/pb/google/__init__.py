"""Messages and services of the contract, generated from protos/ by `make protos`: never edited."""
