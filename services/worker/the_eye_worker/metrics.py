"""What the worker counts."""

from prometheus_client import Counter, Gauge, Histogram

from the_eye.batch_histogram import BatchHistogram

EVENTS = Counter(
    "the_eye_events",
    "Events by what became of them, each time that they were delivered: redelivered ones had been stored before.",
    ["outcome"],
)
UNMATCHED = Counter("the_eye_events_unmatched", "Stored events that no rule matched.")
VIOLATIONS = Counter("the_eye_violations", "Violations by rule.", ["rule", "action"])
IGNORED = Counter(
    "the_eye_checks_ignored", "Checks that could not be evaluated and whose failurePolicy is Ignore.", ["rule"]
)
MESSAGE_EVENTS = Histogram(
    "the_eye_message_events",
    "Events that were stored at once: those of a message, or of several that waited together.",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000),
)
WRITE_SECONDS = Histogram(
    "the_eye_write_duration_seconds",
    "Time of one write of a message's events.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
WRITE_RETRIES = Counter("the_eye_write_retries", "Writes put off because the database could not take them.")
STORED_AFTER_SECONDS = BatchHistogram(
    "the_eye_stored_after_seconds",
    "Time from accepting an event to having it stored.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600),
)
RULESET_INFO = Gauge("the_eye_ruleset_info", "The ruleset in force, as a label; always 1.", ["revision"])
RULESET_LOADED = Gauge("the_eye_ruleset_loaded_timestamp_seconds", "When the ruleset in force was loaded.")
RULESET_RULES = Gauge("the_eye_ruleset_rules", "Rules in force.")
RULE_PROBLEMS = Gauge("the_eye_rule_problems", "Rules or files that were refused.")
DEAD_MESSAGES = Counter("the_eye_dead_messages", "Whole messages set aside because nothing could take them.")
