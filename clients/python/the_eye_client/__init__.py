"""Sends an application's events to The Eye: in the background, in batches, each counted once."""

from the_eye_client._client import AsyncEye, Eye
from the_eye_client._outcomes import Counters, Fault, Lost
from the_eye_client._settings import Settings

__all__ = ["AsyncEye", "Counters", "Eye", "Fault", "Lost", "Settings"]
