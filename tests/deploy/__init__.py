"""What it takes to run the service elsewhere: Kubernetes objects, the container image, dashboards and alerts."""
