"""What each process of the edge counts. What one of them tells for all is in ``shared_metrics.py``."""

from prometheus_client import Counter, Gauge, Histogram

from the_eye.batch_histogram import BatchHistogram

REQUESTS = Counter(
    "the_eye_http_requests", "Answers to requests that send events, by route and status.", ["route", "status"]
)
REFUSALS = Counter(
    "the_eye_http_refusals",
    "Requests to send events that were refused, by route and code of the answer.",
    ["route", "code"],
)
REQUEST_SECONDS = BatchHistogram(
    "the_eye_http_request_duration_seconds",
    "Time to answer a request that sends events.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
    label="route",
)
OTHER_REQUESTS = Counter(
    "the_eye_http_other_requests",
    "Answers to requests that do not send events (queries, pages, probes), by route and status.",
    ["route", "status"],
)
OTHER_REQUEST_SECONDS = Histogram(
    "the_eye_http_other_request_duration_seconds",
    "Time until the answer to a request that does not send events begins.",
    ["route"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
REQUEST_BYTES = Counter(
    "the_eye_http_request_bytes", "Bytes of the bodies of requests that send events, as they came.", ["route"]
)
IN_FLIGHT = Gauge("the_eye_http_requests_in_flight", "Requests that send events and are not answered yet.")
ACCEPTED = Counter("the_eye_events_accepted", "Events that are known to be on disk in the queue.", ["application"])
REFUSED = Counter("the_eye_events_refused", "Events that were refused, by the code of their first fault.", ["code"])
GROUP_EVENTS = Histogram(
    "the_eye_group_events",
    "Events that shared one write to the queue.",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
)
GROUP_SECONDS = Histogram(
    "the_eye_group_write_duration_seconds",
    "Time of one write to the queue, fsync included.",
    buckets=(0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
QUEUE_ERRORS = Counter("the_eye_queue_write_errors", "Writes to the queue that were not confirmed.")
BACKLOG_MAX_BYTES = Gauge("the_eye_backlog_max_bytes", "Memory of the queue beyond which events are refused.")
BACKLOG_FULL = Gauge("the_eye_backlog_full", "1 while events are refused because the workers are too far behind.")
TOKEN_REFUSALS = Counter(
    "the_eye_token_refusals", "Requests that were refused for their token, by the code of the answer.", ["code"]
)
TOKEN_COPY_AGE_SECONDS = Gauge(
    "the_eye_token_copy_age_seconds",
    "Age of the copy of the tokens beside the queue, as far as this process has read or written it; NaN before.",
)
