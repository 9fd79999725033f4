"""The operator: keeps what Kubernetes knows of a cluster in step with who leads it."""
