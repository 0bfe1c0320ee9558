"""`the-eye up --observe` as a person would run it, with the rules that come with it."""

from pathlib import Path

import httpx
import pytest
from tests.machine import free_addresses, running
from tests.observability.prometheus import Prometheus
from tests.observability.stand import CONFIG

pytestmark = pytest.mark.usefixtures("programs")


def test_every_process_is_scraped_and_prometheus_stops_with_the_rest(tmp_path: Path) -> None:
    (listen,) = free_addresses(1)
    options = ("--observe", "--workers", "2", "--prometheus-config", str(CONFIG), "--prometheus-listen", listen)

    with running(tmp_path, *options) as machine:
        url = machine.find(r"^  Prometheus +(\S+)/alerts")
        prometheus = Prometheus(url)
        found = prometheus.wait("count by (job) (up == 1) unless on () (count(up == 1) != 3)")
        assert {sample.labels["job"]: sample.value for sample in found} == {"the-eye-api": 1, "the-eye-worker": 2}
        assert machine.stop() == 0

    prometheus.close()
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)
    assert (machine.data / "prometheus" / "data").is_dir()
