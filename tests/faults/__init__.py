"""What happens when everything around the service fails, and the service itself."""
