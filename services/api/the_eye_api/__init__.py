"""The HTTP edge of The Eye: accepts events and shows them."""
