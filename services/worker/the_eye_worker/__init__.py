"""The worker of The Eye: judges accepted events and stores them."""
