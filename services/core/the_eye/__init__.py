"""The Eye's core: what the services share, free of web frameworks and of Kubernetes."""
