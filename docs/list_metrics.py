"""Lists every metric of every process: writes the tables of docs/metrics.md from the code.

Run from the root of the repository: ``.venv/bin/python -m docs.list_metrics``.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from prometheus_client.core import Metric
from prometheus_client.metrics import MetricWrapperBase

from the_eye.batch_histogram import BatchHistogram
from the_eye_api import metrics as api
from the_eye_api import shared_metrics as shared
from the_eye_api.shared_metrics import Shared
from the_eye_operator import metrics as operator
from the_eye_worker import metrics as worker

PAGE = Path(__file__).with_name("metrics.md")
MARK = "<!-- What follows is written by docs/list_metrics.py. -->\n"

PROCESSES: dict[str, ModuleType] = {
    "API, each process": api,
    "API, one process at a time": shared,
    "Worker, each process": worker,
    "Operator": operator,
}

BOUNDS = {
    "application": "the applications in the database",
    "route": "the two paths that send events",
    "status": "HTTP's status codes; `none` where the Kubernetes API did not answer",
    "code": "codes that stand in the code, as the answer has them",
    "rule": "the rules in force since the process started, and those that are built in",
    "action": "`Enforce`, `Audit`",
    "outcome": "`valid`, `invalid`, `duplicate`, `dead`, `redelivered`; of the operator `success`, `error`",
    "state": "named with each metric",
    "kind": "`event`, `message`",
    "revision": "one at a time",
}
"""What keeps the number of a label's values small."""

STATES = {
    "the_eye_backlog_messages": "`ready`, `delayed`, `unacknowledged`",
    "the_eye_ledger_events_total": "`accepted`, `valid`, `invalid`, `duplicate`, `dead`, `lost`",
    "the_eye_database_connections": "those of PostgreSQL's `pg_stat_activity`",
    "the_eye_operator_rules": "`accepted`, `paused`, `kept`, `refused`",
    "the_eye_operator_workers": "`current`, `behind`",
}


class Listed(NamedTuple):
    """A metric as Prometheus knows it."""

    name: str
    type: str
    labels: tuple[str, ...]
    documentation: str

    @property
    def unit(self) -> str:
        """The unit that the name says; without one it is a number of things."""
        name = self.name.removesuffix("_total")
        if name.endswith("_timestamp_seconds"):
            return "seconds since 1970"
        return next((unit for unit in ("seconds", "bytes") if name.endswith(f"_{unit}")), "")

    @property
    def row(self) -> str:
        """A row of the page's table."""
        labels = ", ".join(f"`{label}`" for label in self.labels)
        states = f" By state: {STATES[self.name]}." if "state" in self.labels else ""
        return f"| `{self.name}` | {self.type} | {self.unit} | {labels} | {self.documentation}{states} |"


def listed(module: ModuleType) -> Iterator[Listed]:
    """List the metrics that a module makes, in its order."""
    for made in vars(module).values():
        if isinstance(made, Shared):
            yield _listed(made.of({} if made.label else 0), (made.label,) if made.label else ())
        elif isinstance(made, MetricWrapperBase):
            (family,) = made.describe()
            yield _listed(family, made._labelnames)  # noqa: SLF001 - told nowhere else before there is a sample
        elif isinstance(made, BatchHistogram):
            (family,) = made.collect()
            yield _listed(family, made.label_names)


def _listed(family: Metric, labels: Sequence[str]) -> Listed:
    name = f"{family.name}_total" if family.type == "counter" else family.name
    return Listed(name, family.type, tuple(labels), family.documentation)


def make() -> str:
    """Make what follows the mark."""
    tables = [
        f"## {process}\n\n| metric | type | unit | labels | what it is |\n| --- | --- | --- | --- | --- |\n"
        + "".join(f"{each.row}\n" for each in listed(module))
        for process, module in PROCESSES.items()
    ]
    bounds = "".join(f"| `{label}` | {bound} |\n" for label, bound in BOUNDS.items())
    return "\n".join([*tables, f"## Labels\n\n| label | what bounds its values |\n| --- | --- |\n{bounds}"])


def page() -> str:
    """Give the page as it should be."""
    return PAGE.read_text().partition(MARK)[0] + MARK + "\n" + make()


if __name__ == "__main__":
    PAGE.write_text(page())
