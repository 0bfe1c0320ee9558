"""A day's curve: from a quiet night to a peak and back, so that what scales has to follow.

Beside the users: ``locust -f tests/load/loadtest/locustfile.py,tests/load/loadtest/day.py``.
"""

from locust import LoadTestShape
from tests.load.loadtest.traffic import users_at

DAY_SECONDS = 20 * 60.0
"""Where no run time is given."""

SPAWN_RATE = 100.0


class Day(LoadTestShape):
    """As many users as were asked for at noon, over the run time that was asked for."""

    use_common_options = True

    def tick(self) -> tuple[int, float] | None:
        """Say how many users there are at this moment; None when the day is over."""
        options = self.runner.environment.parsed_options
        passed = self.get_run_time() / (options.run_time or DAY_SECONDS)
        return None if passed >= 1 else (users_at(passed, options.num_users or 1), SPAWN_RATE)
