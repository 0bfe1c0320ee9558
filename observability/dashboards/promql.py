"""Parts that the dashboards' queries are made of.

A series is selected by the namespaces chosen in the dashboard, and by nothing else that only a cluster has: on one
machine it has no label `namespace`, and `All` matches that, too.
"""

RATE_WINDOW = "$__rate_interval"
"""At least four scrapes, and what one pixel of a graph stands for; Grafana knows both."""

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
    """Take once what one API at a time tells for all: for a moment the one before may be seen beside it."""
    return f"sum{_by(by)} (max{_by('namespace', by)} ({select(metric, *matchers)}))"


def single_rate(metric: str, *matchers: str, by: str = "", window: str = RATE_WINDOW) -> str:
    """As ``single``, the rise of a counter per second."""
    return f"sum{_by(by)} (max{_by('namespace', by)} (rate({select(metric, *matchers, window=window)})))"


def quantile(share: float, metric: str, by: str = "", window: str = RATE_WINDOW) -> str:
    """Value of a histogram that ``share`` of all are below; nothing where there were none, not NaN."""
    buckets = rate(f"{metric}_bucket", by=", ".join(filter(None, ("le", by))), window=window)
    return f"histogram_quantile({share}, {buckets}) >= 0"


def or_zero(expression: str, by: str = "") -> str:
    """Show 0 for a counter that has no series until it first rises; named "none" where series are named by a label."""
    zero = f'label_replace(vector(0), "{by}", "none", "", "")' if by else "vector(0)"
    return f"{expression} or on () {zero}"


def _by(*labels: str) -> str:
    given = ", ".join(filter(None, labels))
    return f" by ({given})" if given else ""
