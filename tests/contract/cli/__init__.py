"""The client commands against the real service, as their users run them."""
