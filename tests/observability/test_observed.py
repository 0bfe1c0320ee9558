"""Prometheus sees all processes of The Eye."""

from tests.observability.stand import Stand

JOBS = ("elsewhere", "the-eye-api", "the-eye-operator", "the-eye-worker")


def test_all_processes_are_scraped(stand: Stand) -> None:
    found = stand.prometheus.wait(f"count(up == 1) == {len(JOBS)}")

    assert found[0].value == len(JOBS)
    assert stand.prometheus.targets() == dict.fromkeys(JOBS, "up")


def test_events_go_all_the_way(stand: Stand) -> None:
    stand.prometheus.wait('sum(rate(the_eye_events_total{outcome="valid"}[10s])) > 0')
    stand.prometheus.wait('sum(rate(the_eye_events_total{outcome="invalid"}[10s])) > 0')
    stand.prometheus.wait('sum(rate(the_eye_violations_total{rule="shop/cta-click-element",action="Audit"}[10s])) > 0')
