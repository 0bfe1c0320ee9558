"""Parts that the dashboards' queries are made of.

A series is selected by the namespaces chosen in the dashboard, and by nothing else that only a cluster has: on one
machine it has no label `namespace`, and `All` matches that, too.
"""

RATE_WINDOW = "$__rate_interval"
"""At least four scrapes, and what one pixel of a graph stands for; Grafana knows both."""

API = "the_eye_http_requests_in_flight"
WORKER = "the_eye_ruleset_rules"
OPERATOR = "the_eye_operator_last_success_timestamp_seconds"
MARKS = {"api": API, "worker": WORKER, "operator": OPERATOR}
"""A metric that every process of a kind has and no other: process_* are those of everything that Prometheus scrapes."""

NOW = "2m"
"""Window of what is shown as one number: several scrapes, and soon over a fault that is over."""


def select(metric: str, *matchers: str, window: str = "") -> str:
    """Select a metric's series in the chosen namespaces; over ``window``, if there is one."""
    labels = ", ".join(('namespace=~"$namespace"', *matchers))
    return f"{metric}{{{labels}}}" + (f"[{window}]" if window else "")


def total(metric: str, *matchers: str, by: str = "") -> str:
    """Add up what each process tells of itself."""
    return f"sum{_by(by)} ({select(metric, *matchers)})"


def rate(metric: str, *matchers: str, by: str = "", window: str = RATE_WINDOW) -> str:
    """Rise of a counter per second, over all processes."""
    return f"sum{_by(by)} (rate({select(metric, *matchers, window=window)}))"


def single(metric: str, *matchers: str, by: str = "") -> str:
    """Take once what one API at a time tells for all: for a moment the one before may be seen beside it.

    A rate is taken of what the recording rules make of it, which goes on from one API to the next.
    """
    return f"sum{_by(by)} (max{_by('namespace', by)} ({select(metric, *matchers)}))"


def quantile(share: float, metric: str, by: str = "", window: str = RATE_WINDOW) -> str:
    """Value of a histogram that ``share`` of all are below; nothing where there were none, not NaN."""
    buckets = rate(f"{metric}_bucket", by=", ".join(filter(None, ("le", by))), window=window)
    return f"histogram_quantile({share}, {buckets}) >= 0"


def or_zero(expression: str, mark: str, by: str = "") -> str:
    """Show 0 for a counter that has no series until it first rises; named "none" where series are named by a label.

    Only while a process is seen that would count: ``mark`` is a metric that it always has.
    """
    zero = f"0 * count ({select(mark)})"
    return f"{expression} or on () " + (f'label_replace({zero}, "{by}", "none", "", "")' if by else zero)


def _by(*labels: str) -> str:
    given = ", ".join(filter(None, labels))
    return f" by ({given})" if given else ""
