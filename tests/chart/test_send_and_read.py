"""What `helm test` runs decides right where it can be wrong; its way through a release is the cluster's to show."""

import runpy

import msgspec
from tests.chart.values import CHART

SCRIPT = runpy.run_path(str(CHART / "files" / "send-and-read.py"))


def is_listed(*names: str) -> bool:
    """Ask the script whether its application is among those that `the-eye application list` prints."""
    printed = msgspec.json.encode([{"id": 1, "name": name} for name in names]).decode()
    return bool(SCRIPT["is_listed"](printed))


def test_its_application_is_not_taken_for_another() -> None:
    assert is_listed("shop", "helm-test")
    assert not is_listed("shop", "helm-test-2", "old-helm-test")
    assert not is_listed()
