"""A Kubernetes cluster as its users reach it: contexts, secrets, port-forwards."""
