"""All of The Eye under a little load, with a real Prometheus that scrapes it: API, worker and operator.

`the-eye up --observe` runs the API, the worker and Prometheus; beside it an operator works with a stand-in for the API
server. What it publishes comes to the worker only when a test delivers it. Prometheus looks once a second, at rules
whose durations are a sixtieth (``scaling.py``).
"""

import os
import shlex
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import redis
import yaml
from tests.chart import prometheus_rules
from tests.machine import THE_EYE, Machine, free_addresses, running
from tests.observability import senders
from tests.observability.elsewhere import telling
from tests.observability.kubernetes import Kubernetes
from tests.observability.prometheus import Prometheus
from tests.observability.scaling import scaled
from tests.observability.senders import Sender

CONFIG = Path(__file__).parents[2] / "observability" / "prometheus" / "prometheus.yml"

THRESHOLDS = {"backlogAgeSeconds": 5}
"""Bounds in seconds that a test waits for. The others are times of the processes' own, which are as always."""

PAGEVIEW = {"category": "page interaction", "name": "pageview"}
CLICK = {"category": "page interaction", "name": "cta click"}


class Stand:
    """What a test looks at and breaks."""

    def __init__(self, machine: Machine, kubernetes: Kubernetes, rules: Path, prometheus: Prometheus) -> None:
        self._rules = rules
        self._settings = _exported(machine.data / "env")
        self.machine = machine
        self.kubernetes = kubernetes
        self.prometheus = prometheus
        self.sender = Sender(machine.api, machine.token)

    def deliver(self) -> None:
        """Let the worker have what the operator has published."""
        self.kubernetes.deliver(self._rules)

    @contextmanager
    def worker_frozen(self) -> Iterator[None]:
        """Stop the worker where it is for as long as the block lasts; it is scraped in vain meanwhile."""
        worker = self.machine.children()["the_eye_cli worker"]
        os.kill(worker, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(worker, signal.SIGCONT)

    def redis(self) -> "redis.Redis":
        """Connect to the queue's server."""
        return redis.Redis.from_url(self._settings["THE_EYE_REDIS_URL"])

    def database(self) -> "psycopg.Connection[tuple[object, ...]]":
        """Connect to the database."""
        return psycopg.connect(self._settings["THE_EYE_DATABASE_URL"], autocommit=True)

    def run(self, *arguments: str) -> None:
        """Run a command of `the-eye` on these servers."""
        ran = subprocess.run(  # noqa: S603 - our own command
            [*THE_EYE, *arguments],
            env={**self.machine.environ, **self._settings},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr

    def log(self, name: str) -> str:
        """Give the end of a process's log."""
        return (self.machine.data / "logs" / f"{name}.log").read_text()[-4_000:]


def _exported(file: Path) -> dict[str, str]:
    pairs = (shlex.split(line)[1].partition("=") for line in file.read_text().splitlines())
    return {key: value for key, _, value in pairs}


@contextmanager
def standing(folder: Path) -> Iterator[Stand]:
    """Start all of it, under load, and stop it at the end of the block."""
    operator_listen, elsewhere_listen, prometheus_listen = free_addresses(3)
    rules = folder / "mounted"
    config = _configure(folder, operator_listen, elsewhere_listen)
    with Kubernetes(folder, operator_listen).running() as kubernetes, telling(elsewhere_listen):
        _apply_rules(kubernetes)
        kubernetes.start_operator()
        kubernetes.deliver(rules)
        options = ("--observe", "--prometheus-config", str(config), "--prometheus-listen", prometheus_listen)
        with running(folder, *options, rules=rules) as machine:
            kubernetes.run_pod(machine.environ["THE_EYE_WORKER_METRICS_LISTEN"])
            prometheus = Prometheus(f"http://{prometheus_listen}")
            stand = Stand(machine, kubernetes, rules, prometheus)
            with stand.sender.sending():
                yield stand
            prometheus.close()


def _configure(folder: Path, operator_listen: str, elsewhere_listen: str) -> Path:
    """Make Prometheus look often, at shorter rules, at the operator, too, and at what other programs tell."""
    config = yaml.safe_load(CONFIG.read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    for job in config["scrape_configs"]:
        if job["job_name"] == "the-eye-operator":
            job["static_configs"] = [{"targets": [operator_listen]}]
    config["scrape_configs"].append({"job_name": "elsewhere", "static_configs": [{"targets": [elsewhere_listen]}]})
    (folder / "rules").mkdir()
    for name, text in prometheus_rules.filled(THRESHOLDS).items():
        (folder / "rules" / name).write_text(scaled(text))
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    return path


def _apply_rules(kubernetes: Kubernetes) -> None:
    """One rule that events break, and one that only looks."""
    host = {"type": "object", "properties": {"host": {"const": senders.HOST}}}
    element = {"type": "object", "properties": {"element": {"enum": ["chat bubble"]}}}
    kubernetes.apply("page-view-host", match=PAGEVIEW, schema=host)
    kubernetes.apply("cta-click-element", match=CLICK, schema=element, action="Audit")
