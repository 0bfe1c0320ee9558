"""What a running Prometheus is asked."""

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import httpx
import msgspec

ANSWER_SECONDS = 30.0
PATIENCE = 120.0
POLL_SECONDS = 0.25

T = TypeVar("T")


class QueryError(Exception):
    """Raised when Prometheus refuses a query; holds what it says."""


class Sample(msgspec.Struct, frozen=True):
    """One element of an instant vector."""

    labels: Mapping[str, str]
    value: float


class Prometheus:
    """Queries over HTTP."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = httpx.Client(base_url=f"{url}/api/v1", timeout=ANSWER_SECONDS)

    def query(self, expression: str) -> list[Sample]:
        """Evaluate an expression now. Raises QueryError."""
        data = self._get("query", query=expression)
        if data["resultType"] == "scalar":
            return [Sample({}, float(data["result"][1]))]
        return [Sample(found["metric"], float(found["value"][1])) for found in data["result"]]

    def rules(self) -> list[dict[str, Any]]:
        """Give all rules with their health and, for alerts, their state."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def firing(self) -> set[str]:
        """Give the alerts that fire."""
        return {alert["labels"]["alertname"] for alert in self._get("alerts")["alerts"] if alert["state"] == "firing"}

    def wait_for_rules(self, seconds: float = PATIENCE) -> None:
        """Wait until each rule was evaluated at least once."""
        _wait(lambda: all(rule["health"] != "unknown" for rule in self.rules()), "rules to be evaluated", seconds)

    def alerts(self, name: str) -> list[dict[str, Any]]:
        """Give an alert's instances that are pending or firing, with their annotations."""
        return [found for found in self._get("alerts")["alerts"] if found["labels"]["alertname"] == name]

    def targets(self) -> dict[str, str]:
        """Give the health of each job's targets, by job; the worst of several."""
        found = [(t["labels"]["job"], t["health"]) for t in self._get("targets")["activeTargets"]]
        return dict(sorted(found, reverse=True))

    def wait(self, expression: str, seconds: float = PATIENCE) -> list[Sample]:
        """Wait until an expression gives something."""
        return _wait(lambda: self.query(expression), expression, seconds)

    def wait_until_firing(self, alert: str, seconds: float = PATIENCE) -> dict[str, Any]:
        """Wait until an alert fires; gives one of its instances."""
        fires = _wait(lambda: [found for found in self.alerts(alert) if found["state"] == "firing"], alert, seconds)
        return fires[0]

    def wait_until_quiet(self, alert: str, seconds: float = PATIENCE) -> None:
        """Wait until an alert does not fire any more, nor is about to."""
        _wait(lambda: not self.alerts(alert), f"{alert} to be over", seconds)

    def _get(self, path: str, **params: str) -> Any:
        answer = self._client.get(path, params=params).json()
        if answer["status"] != "success":
            raise QueryError(answer["error"])
        return answer["data"]

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _wait(ask: Callable[[], T], what: str, seconds: float) -> T:
    """Ask until the answer is something; not as often as could be, for Prometheus has the same processors."""
    deadline = time.monotonic() + seconds
    while not (answer := ask()):
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain for {what}"
        time.sleep(POLL_SECONDS)
    return answer
