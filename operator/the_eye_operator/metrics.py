"""What the operator counts."""

from prometheus_client import Counter, Gauge, Histogram

RECONCILES = Counter("the_eye_operator_reconciles", "Reconciles by how they ended.", ["outcome"])
RECONCILE_SECONDS = Histogram(
    "the_eye_operator_reconcile_duration_seconds",
    "Time of one reconcile.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
LAST_SUCCESS = Gauge("the_eye_operator_last_success_timestamp_seconds", "When a reconcile last succeeded.")
API_ERRORS = Counter(
    "the_eye_operator_api_errors",
    "Calls that the Kubernetes API refused or did not answer, by status; 404 and 409 are answers.",
    ["status"],
)
RULES = Gauge(
    "the_eye_operator_rules",
    "ValidatorRules by state: accepted; paused, with another version or none in force; kept, which are "
    "refused with an earlier version in force; refused, with none.",
    ["state"],
)
RULESET_INFO = Gauge("the_eye_operator_ruleset_info", "The published ruleset, as a label; always 1.", ["revision"])
RULESET_BYTES = Gauge("the_eye_operator_ruleset_bytes", "Size of the published ruleset.")
WORKERS = Gauge(
    "the_eye_operator_workers", "Worker pods that are ready, by whether they run the published ruleset.", ["state"]
)
WATCH_RESTARTS = Counter("the_eye_operator_watch_restarts", "Times that watching had to begin anew.")
MISSED = Counter("the_eye_operator_missed_changes", "Changes that only a list found, no watch.")
DEFINITION_MISSING = Gauge(
    "the_eye_operator_definition_missing", "1 while ValidatorRules are not known to the API server."
)
