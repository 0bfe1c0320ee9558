"""The dashboard for finding a cause: Redis, PostgreSQL, and The Eye's own processes."""

from observability.dashboards.panels import NAMESPACE, NEUTRAL, Board, Graph, Query, Row, Stat
from observability.dashboards.promql import (
    API,
    MARKS,
    NOW,
    RATE_WINDOW,
    WORKER,
    or_zero,
    quantile,
    rate,
    select,
    single,
    total,
)

REDIS = "the_eye_redis"
DATABASE = "the_eye_database"

DAY = 86_400

_OLDEST = 'generation="2"'

QUANTILES = ((0.5, "p50"), (0.99, "p99"))


def _processes(expression: str) -> tuple[Query, ...]:
    """Show something of each process; in the cluster it is named by its pod, on one machine by its address."""
    return tuple(
        Query(f"{expression} and on (job, instance) {select(mark)}", f"{kind} {{{{pod}}}} {{{{instance}}}}")
        for kind, mark in MARKS.items()
    )


def _mean(histogram: str) -> str:
    return f"{rate(f'{histogram}_sum')} / ({rate(f'{histogram}_count')} > 0)"


def _memory_used() -> str:
    limit = single(f"{REDIS}_memory_max_bytes")
    return f"{single(f'{REDIS}_memory_used_bytes')} / ({limit} > 0)"


STATE_ROW = Row(
    id=10,
    title="What runs out?",
    panels=(
        Stat(
            id=11,
            title="Redis memory used",
            description="Share of maxmemory. Redis refuses writes at 100 %, and The Eye refuses events before that; "
            "drain the backlog or give Redis more memory.",
            runbook="TheEyeRedisMemoryNearLimit",
            width=4,
            query=_memory_used(),
            unit="percentunit",
            decimals=1,
            steps={0: "green", 0.75: "orange", 0.85: "red"},
            missing="no limit",
            missing_color=NEUTRAL,
        ),
        Stat(
            id=12,
            title="Redis evicted keys",
            description="Anything but 0 means that Redis threw away data: maxmemory-policy has to be noeviction.",
            runbook="TheEyeRedisEvictions",
            width=4,
            query=single(f"{REDIS}_evicted_keys_total"),
            unit="short",
            steps={0: "green", 1: "red"},
            missing="unknown",
        ),
        Stat(
            id=13,
            title="Partitions for",
            description="How long the partitions made in advance last. Beyond them events go to the default partition, "
            "which is slow to take apart: see why `the-eye maintain` does not run daily.",
            runbook="TheEyePartitionsRunOut",
            width=4,
            query=f"clamp_min(min({select('the_eye_partitions_until_timestamp_seconds')}) - time(), 0)",
            unit="s",
            steps={0: "red", 2 * DAY: "orange", 5 * DAY: "green"},
            missing="unknown",
        ),
        Stat(
            id=14,
            title="Certificate for",
            description="Time until the first certificate of the namespace runs out, if cert-manager tells. It renews "
            "them a third of their life before.",
            runbook="TheEyeCertificateRunsOut",
            width=4,
            query=f"min({select('certmanager_certificate_expiration_timestamp_seconds')}) - time()",
            unit="s",
            steps={0: "red", 7 * DAY: "orange", 14 * DAY: "green"},
            missing="none known",
            missing_color=NEUTRAL,
        ),
        Stat(
            id=15,
            title="Writes put off",
            description="Writes in the last two minutes that workers repeat because PostgreSQL could not take them. "
            "Nothing is lost: the events stay in the queue.",
            runbook="TheEyeDatabaseAway",
            width=4,
            query=or_zero(f"sum (increase({select('the_eye_write_retries_total', window=NOW)}))", WORKER),
            unit="short",
            decimals=0,
            steps={0: "green", 1: "orange"},
            missing="unknown",
        ),
        Stat(
            id=16,
            title="Copy of the tokens",
            description="Age of the copy of the tokens beside the queue, as the API that read it last has it. It is "
            "written once a minute while PostgreSQL answers. If it grows, PostgreSQL does not answer the APIs: they "
            "accept events by what they know, and a token that was revoked otherwise than by `the-eye token revoke` "
            "still works.",
            runbook="TheEyeTokenCopyStale",
            width=4,
            query=f"max(min by (namespace) ({select('the_eye_token_copy_age_seconds')} >= 0))",
            unit="s",
            steps={0: "green", 120: "orange", 600: "red"},
            missing="unknown",
        ),
    ),
)

REDIS_ROW = Row(
    id=20,
    title="Redis",
    panels=(
        Graph(
            id=21,
            title="Memory",
            description="Used memory and maxmemory, if there is one. It follows the backlog.",
            runbook="TheEyeRedisMemoryNearLimit",
            width=8,
            queries=(
                Query(single(f"{REDIS}_memory_used_bytes"), "used"),
                Query(f"{single(f'{REDIS}_memory_max_bytes')} > 0", "limit"),
            ),
            unit="bytes",
            colors={"limit": "red"},
        ),
        Graph(
            id=22,
            title="Write to the queue",
            description="Time of one write, fsync included: every request waits for it. If it rises, the disk of Redis "
            "is slow or shared.",
            runbook="TheEyeAcceptLatencyBudgetBurn",
            width=8,
            queries=tuple(Query(quantile(q, "the_eye_group_write_duration_seconds"), name) for q, name in QUANTILES),
            unit="s",
            colors={"p50": "green", "p99": "orange"},
        ),
        Graph(
            id=23,
            title="Events in one write",
            description="Events that share one fsync. It rises with the load; at 500 the groups are full and latency "
            "rises instead.",
            width=8,
            queries=(
                Query(_mean("the_eye_group_events"), "mean"),
                Query(quantile(0.99, "the_eye_group_events"), "p99"),
            ),
            unit="short",
        ),
        Graph(
            id=24,
            title="Writes that were not confirmed",
            description="Each was answered with 503. Redis is away, full, or does not write what it promised.",
            runbook="TheEyeQueueWriteErrors",
            width=8,
            queries=(Query(or_zero(rate("the_eye_queue_write_errors_total"), API), "not confirmed"),),
            unit="wps",
            colors={"not confirmed": "red"},
        ),
        Graph(
            id=25,
            title="Delayed fsyncs",
            description="Times a second that Redis had to wait for its disk while another fsync ran.",
            runbook="TheEyeAcceptLatencyBudgetBurn",
            width=8,
            queries=(Query(rate(f"namespace:{REDIS}_aof_delayed_fsyncs:max"), "delayed"),),
            unit="ops",
        ),
        Graph(
            id=26,
            title="Clients",
            description="Connections to Redis. It grows with APIs and workers; a number that only rises is a leak.",
            width=8,
            queries=(Query(single(f"{REDIS}_connected_clients"), "connected"),),
            unit="short",
        ),
    ),
)

DATABASE_ROW = Row(
    id=30,
    title="PostgreSQL",
    panels=(
        Graph(
            id=31,
            title="Write of a message",
            description="Time to store one message's events and commit. If it rises, workers fall behind: look for "
            "locks, a busy disk, or too many workers.",
            runbook="TheEyeFreshnessBudgetBurn",
            width=8,
            queries=tuple(Query(quantile(q, "the_eye_write_duration_seconds"), name) for q, name in QUANTILES),
            unit="s",
            colors={"p50": "green", "p99": "orange"},
        ),
        Graph(
            id=32,
            title="Events written at once",
            description="Events in one transaction. It rises when workers are behind and join messages, which makes "
            "each event cheaper.",
            width=8,
            queries=(
                Query(_mean("the_eye_message_events"), "mean"),
                Query(quantile(0.99, "the_eye_message_events"), "p99"),
            ),
            unit="short",
        ),
        Graph(
            id=33,
            title="Writes put off",
            description="Writes a second that are repeated because PostgreSQL could not take them, and whole messages "
            "that were set aside.",
            runbook="TheEyeDatabaseAway",
            width=8,
            queries=(
                Query(or_zero(rate("the_eye_write_retries_total"), WORKER), "put off"),
                Query(or_zero(rate("the_eye_dead_messages_total"), WORKER), "messages set aside"),
            ),
            unit="wps",
            colors={"put off": "orange", "messages set aside": "red"},
        ),
        Graph(
            id=34,
            title="Connections by state",
            description="Of all clients of the database. Idle in transaction for long: something holds locks. Compare "
            "the sum with max_connections.",
            width=8,
            queries=(Query(single(f"{DATABASE}_connections", by="state"), "{{state}}"),),
            unit="short",
            stacked=True,
        ),
        Graph(
            id=35,
            title="Size",
            description="Of the database on its disk. THE_EYE_RETENTION_DAYS bounds it: whole days are dropped.",
            width=8,
            queries=(Query(single(f"{DATABASE}_bytes"), "database"),),
            unit="bytes",
        ),
        Graph(
            id=36,
            title="Dead events that wait",
            description="Rows of dead_events: single events that could not be stored, and whole messages that could "
            "not be read.",
            runbook="TheEyeDeadEvents",
            width=8,
            queries=(Query(single("the_eye_dead_events", by="kind"), "{{kind}}"),),
            unit="short",
            stacked=True,
            colors={"event": "orange", "message": "red"},
        ),
    ),
)

PROCESSES_ROW = Row(
    id=40,
    title="Processes",
    panels=(
        Graph(
            id=41,
            title="CPU",
            description="Cores that each process uses; it can use one. At 1 for long it is the limit: more replicas "
            "are needed.",
            width=8,
            queries=_processes(f"rate({select('process_cpu_seconds_total', window=RATE_WINDOW)})"),
            unit="percentunit",
            limits={1: "red"},
        ),
        Graph(
            id=42,
            title="Memory",
            description="Resident memory of each process. The chart's limit is 640 MiB for APIs and workers.",
            width=8,
            queries=_processes(select("process_resident_memory_bytes")),
            unit="bytes",
        ),
        Graph(
            id=43,
            title="Open files",
            description="Share of the file descriptors that each process may have; connections are among them. At 100 "
            "% none is accepted any more.",
            width=8,
            queries=_processes(f"{select('process_open_fds')} / {select('process_max_fds')}"),
            unit="percentunit",
        ),
        Graph(
            id=44,
            title="Garbage collections",
            description="Of the oldest generation, a second. Each stops a process for milliseconds.",
            width=8,
            queries=_processes(
                f"rate({select('python_gc_collections_total', _OLDEST, window=RATE_WINDOW)})",
            ),
            unit="ops",
        ),
        Graph(
            id=45,
            title="Requests in flight",
            description="Requests that are being read or wait for Redis, over all APIs.",
            width=8,
            queries=(Query(total("the_eye_http_requests_in_flight"), "in flight"),),
            unit="short",
        ),
        Graph(
            id=46,
            title="Bytes received",
            description="Bodies of requests, as they came, compressed or not.",
            width=8,
            queries=(
                Query(or_zero(rate("the_eye_http_request_bytes_total", by="route"), API, by="route"), "{{route}}"),
            ),
            unit="binBps",
            stacked=True,
        ),
        Graph(
            id=47,
            title="Queries and pages",
            description="Answers a second to all that is not about sending events, by status; probes are among them.",
            width=12,
            queries=(Query(rate("the_eye_http_other_requests_total", by="status"), "{{status}}"),),
            unit="reqps",
            stacked=True,
        ),
        Graph(
            id=48,
            title="Time of queries and pages",
            description="p95 until the answer begins, by route. Slow ones read more rows than they should, or wait for "
            "PostgreSQL.",
            width=12,
            queries=(Query(quantile(0.95, "the_eye_http_other_request_duration_seconds", by="route"), "{{route}}"),),
            unit="s",
        ),
    ),
)

BOARD = Board(
    uid="the-eye-runtime",
    title="The Eye: runtime",
    description="Redis, PostgreSQL and The Eye's own processes, for finding a cause.",
    choices=(NAMESPACE,),
    rows=(STATE_ROW, REDIS_ROW, DATABASE_ROW, PROCESSES_ROW),
)
