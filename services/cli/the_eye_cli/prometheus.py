"""Prometheus for one machine, from the system's own package: it scrapes what runs here, with our rules and alerts."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from the_eye.settings import Address
from the_eye_cli.probes import reachable, why_not_ok

PROGRAM = "prometheus"


class PrometheusError(Exception):
    """Raised when Prometheus cannot run here; its text says what to do."""


class Prometheus:
    """Prometheus with its data in ``<data>/prometheus``."""

    name = "prometheus"
    title = "Prometheus"

    def __init__(self, data: Path, config: Path, listen: Address) -> None:
        """Find the program; ``data`` is absolute, ``config`` the file whose jobs and rules are taken.

        Raises PrometheusError.
        """
        program = shutil.which(PROGRAM)
        if program is None:
            message = f"--observe needs the program {PROGRAM}, which is not installed; on Debian: apt install {PROGRAM}"
            raise PrometheusError(message)
        self.listen = listen
        self.url = f"http://{reachable(listen)}"
        self._program = program
        self._folder = data / "prometheus"
        self._rules_folder = config.resolve().parent
        self._config = _read(config)

    @property
    def _config_file(self) -> Path:
        return self._folder / "prometheus.yml"

    def configure(self, targets: Mapping[str, Sequence[Address]]) -> None:
        """Write the configuration, with these addresses in place of a job's own; other jobs stay as they are."""
        jobs = [
            {**job, "static_configs": [{"targets": [str(reachable(address)) for address in targets[job["job_name"]]]}]}
            if job["job_name"] in targets
            else job
            for job in self._config["scrape_configs"]
        ]
        rules = [str(self._rules_folder / pattern) for pattern in self._config["rule_files"]]
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._config_file.write_text(yaml.safe_dump({**self._config, "rule_files": rules, "scrape_configs": jobs}))

    @property
    def command(self) -> list[str]:
        """What runs the server; its log goes to standard error."""
        return [
            self._program,
            f"--config.file={self._config_file}",
            f"--storage.tsdb.path={self._folder / 'data'}",
            f"--web.listen-address={self.listen}",
            "--enable-feature=exemplar-storage",
        ]

    async def why_not_ready(self) -> str:
        """Say why the server does not answer queries yet; an empty text means that it does."""
        return await why_not_ok(self.listen, "/-/ready")


def _read(config: Path) -> dict[str, Any]:
    try:
        read: dict[str, Any] = yaml.safe_load(config.read_text())
    except OSError as error:
        message = f"{config} cannot be read ({error.strerror}): name another with --prometheus-config"
        raise PrometheusError(message) from error
    return read
