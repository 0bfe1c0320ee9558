"""The ``the-eye`` command."""
