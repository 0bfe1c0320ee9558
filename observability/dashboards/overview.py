"""The dashboard to open first: is anything lost, how late are events, what is to be done."""

from observability.dashboards.panels import NAMESPACE, NEUTRAL, Board, Choice, Graph, Query, Row, Stat, Table, Text
from observability.dashboards.promql import API, MARKS, NOW, WORKER, or_zero, quantile, rate, select, single, total

STORED_WITHIN = 10
"""Seconds in which an accepted event should be stored."""

ACCEPTING_OBJECTIVE = 0.999
STORED_OBJECTIVE = 0.99

NEVER = 86_400
"""Seconds from which on a backlog counts as one that does not drain."""

WENT_BACK = 1e12
"""Stands for a loss that nobody has counted."""

VERDICTS = {"valid": "green", "invalid": "orange", "duplicate": "blue", "dead": "red"}

RECORDED = "namespace:the_eye_backlog_bytes:max"
"""Is there whenever Prometheus evaluates the rules and sees an API."""

ACTIVE = 'ALERTS_FOR_STATE{namespace=~"$namespace|", alertname=~"TheEye.+"}'
FIRING = 'ALERTS{namespace=~"$namespace|", alertname=~"TheEye.+", alertstate="firing"}'
"""An alert that something is absent knows of no namespace."""

ACCEPTED = "the_eye_events_accepted_total"
OUTCOMES = "the_eye_events_total"
OUTCOME = 'outcome!="redelivered"'
LEDGER = "the_eye_ledger_events_total"
RECORDED_LEDGER = "namespace_state:the_eye_ledger_events:max"
IN, OUT = 'state="accepted"', 'state!="accepted"'
DIFFERENCE = "the_eye_ledger_difference_events"
REQUESTS = "the_eye_http_requests_total"
STORED_AFTER = "the_eye_stored_after_seconds"


_CHOSEN = 'application=~"$application"'
_HPA = 'horizontalpodautoscaler=~".+-(api|worker)"'


def _available(window: str) -> str:
    failed = or_zero(rate(REQUESTS, 'status=~"5.."', window=window), API)
    return f"1 - ({failed}) / ({rate(REQUESTS, window=window)} > 0)"


def _within(window: str) -> str:
    in_time = rate(f"{STORED_AFTER}_bucket", f'le=~"{STORED_WITHIN}|{STORED_WITHIN}.0"', window=window)
    return f"{in_time} / ({rate(f'{STORED_AFTER}_count', window=window)} > 0)"


def _drains_in() -> str:
    """Time until the backlog is gone.

    While workers keep up, what waits is what they are working on: then it is the time they take for it. Behind by more
    than ten seconds' work, it is what they gain on the senders that counts.
    """
    waiting = f"({single('the_eye_backlog_events')} or {_unfinished()})"
    finished = rate(RECORDED_LEDGER, OUT, window=NOW)
    gained = f"({finished} - {rate(RECORDED_LEDGER, IN, window=NOW)})"
    behind = f"clamp_max({waiting} / clamp_min({gained}, 0.001), {NEVER}) and {waiting} > 10 * {finished}"
    return f"{behind} or {waiting} / clamp_min({finished}, 1)"


def _unfinished() -> str:
    return f"({single(LEDGER, IN)} - sum({single(LEDGER, OUT, by='state')}))"


def _falls() -> str:
    """Times that the ledger has fallen, as the alert has it."""
    return f"sum (resets({select(RECORDED_LEDGER, IN, window='6h')}))"


def _replicas(component: str) -> tuple[Query, ...]:
    scaler = f'horizontalpodautoscaler=~".+-{component}"'
    return (
        Query(f"count ({select(MARKS[component])})", "processes seen"),
        *(
            Query(total(f"kube_horizontalpodautoscaler_{metric}", scaler), legend)
            for metric, legend in (
                ("status_desired_replicas", "wanted"),
                ("spec_min_replicas", "least"),
                ("spec_max_replicas", "most"),
            )
        ),
    )


def _scaled(metric: str) -> str:
    labels = "namespace, horizontalpodautoscaler, metric_name, metric_target_type"
    return f"max by ({labels}) ({select(f'kube_horizontalpodautoscaler_{metric}', _HPA)})"


READING = f"""\
| if | then |
|---|---|
| **Events lost** is not 0 | events were accepted and have no outcome: keep Redis as it is and read the runbook |
| **Dead events** is not 0 | nothing is lost: `the-eye dead list` names the error; repair it, `the-eye dead replay` |
| **Requests answered** falls | *Refusals by code*: `queue_full` is workers behind, `queue_unavailable` Redis |
| **Stored after** is over {STORED_WITHIN} s | workers are behind: look at *Replicas*, then PostgreSQL in *Runtime* |
| **Oldest waiting** grows | no worker takes anything: are there any? |
| all are green | events arrive, are judged and are stored |
"""

NOW_ROW = Row(
    id=10,
    title="Is anything lost, and how late is it?",
    panels=(
        Stat(
            id=11,
            title="Events lost",
            description="Events that were accepted and are neither queued nor stored, duplicate or dead. Anything but "
            "0 breaks the promise: do not flush, restart or fail over Redis before it is understood; `the-eye ledger "
            "show` prints the ledger. Redis went back: it is empty or as it was earlier, the ledger with it, see "
            "TheEyeLedgerWentBack. Not counted: too many messages wait, or no API has been seen.",
            runbook="TheEyeLedgerDifference",
            width=4,
            query=f"{WENT_BACK} * ({_falls()} > 0) or max(abs({select(DIFFERENCE)}))",
            unit="short",
            steps={0: "green", 1: "red"},
            texts={WENT_BACK: "Redis went back"},
            missing="not counted",
        ),
        Stat(
            id=12,
            title="Dead events",
            description="Events and messages set aside because nothing could store or read them. They are kept: "
            "`the-eye dead list` names the error of each, `replay` sends them again, `discard` gives them up.",
            runbook="TheEyeDeadEvents",
            width=4,
            query=f"sum({single('the_eye_dead_events', by='kind')})",
            unit="short",
            steps={0: "green", 1: "orange", 1000: "red"},
            missing="unknown",
        ),
        Stat(
            id=13,
            title="Requests answered",
            description="Share of requests in the last two minutes that were not answered with 5xx. What The Eye "
            "refuses for good reason (4xx) counts as answered. 503 means that Redis did not confirm, or that the queue "
            "is full.",
            runbook="TheEyeAcceptErrorBudgetBurn",
            width=4,
            query=_available(NOW),
            unit="percentunit",
            decimals=2,
            steps={0: "red", 0.99: "orange", ACCEPTING_OBJECTIVE: "green"},
            missing="no requests",
            missing_color=NEUTRAL,
        ),
        Stat(
            id=14,
            title="Stored after (p99)",
            description="Time from accepting an event to having it stored, which 99 of 100 did not exceed in the last "
            f"two minutes. {STORED_OBJECTIVE:.0%} should be stored within {STORED_WITHIN} s. If it is more, workers "
            "are too few or wait for PostgreSQL.",
            runbook="TheEyeFreshnessBudgetBurn",
            width=4,
            query=quantile(0.99, STORED_AFTER, window=NOW),
            unit="s",
            steps={0: "green", STORED_WITHIN / 2: "orange", STORED_WITHIN: "red"},
            missing="no events",
            missing_color=NEUTRAL,
        ),
        Stat(
            id=15,
            title="Oldest waiting",
            description="Age of the oldest message that no worker has finished. It grows by a second each second while "
            "no worker takes anything, or nobody takes that message.",
            runbook="TheEyeBacklogNotDraining",
            width=4,
            query=f"max({select('the_eye_backlog_age_seconds')})",
            unit="s",
            steps={0: "green", STORED_WITHIN: "orange", 60: "red"},
            missing="unknown",
        ),
        Stat(
            id=16,
            title="Alerts firing",
            description="Alerts of The Eye that Prometheus has firing; the table below names them. Not loaded: "
            "Prometheus does not evaluate the rules in observability/prometheus/rules.",
            width=4,
            query=f"count({FIRING}) or 0 * max({select(RECORDED)})",
            unit="short",
            steps={0: "green", 1: "red"},
            missing="rules not loaded",
        ),
        Table(
            id=17,
            title="Alerts that fire",
            description="Each links to its runbook, docs/runbooks/ALERT.md: what it means, how to look, what to do.",
            width=10,
            height=7,
            query=f"time() - min by (severity, alertname) ({ACTIVE}) and on (alertname, severity) {FIRING}",
            unit="s",
            columns={"severity": "Severity", "alertname": "Alert"},
            runbook_of="Alert",
            value="Since",
            missing="no alert fires",
        ),
        Text(
            id=18,
            title="What to do",
            description="The six numbers above, from the worst to the mildest.",
            width=14,
            height=7,
            content=READING,
        ),
    ),
)

THROUGHPUT_ROW = Row(
    id=20,
    title="Throughput",
    panels=(
        Graph(
            id=21,
            title="Accepted and finished",
            description="Events a second that were accepted, and that came to an outcome. Accepted above finished for "
            "long is a backlog that grows; finished above accepted is one that drains.",
            width=12,
            queries=(
                Query(or_zero(rate(ACCEPTED), API), "accepted"),
                Query(or_zero(rate(OUTCOMES, OUTCOME), WORKER), "finished"),
            ),
            unit="eps",
            colors={"accepted": "blue", "finished": "green"},
        ),
        Graph(
            id=22,
            title="Outcomes",
            description="What became of events, by the ledger. Many invalid at once: a sender or a rule has changed, "
            "see the dashboard of the rules. Many duplicates: a sender repeats itself. Dead: see the number above.",
            runbook="TheEyeDeadEvents",
            width=12,
            queries=tuple(Query(rate(RECORDED_LEDGER, f'state="{name}"'), name) for name in VERDICTS),
            unit="eps",
            stacked=True,
            colors=VERDICTS,
        ),
        Graph(
            id=23,
            title="Accepted by application",
            description="The ten applications that send most, of those chosen above.",
            width=12,
            queries=(Query(f"topk(10, {rate(ACCEPTED, _CHOSEN, by='application')})", "{{application}}"),),
            unit="eps",
        ),
        Graph(
            id=24,
            title="Refusals by code",
            description="Requests refused, by the code that their sender was given; also events by their first fault, "
            "one by one, and tokens. Faults are the sender's to repair; `rate_limited` asks for a higher limit or a "
            "slower sender, `crowded` for fewer requests at a time. The Eye's own are `queue_full`: workers are "
            "behind; `queue_unavailable`: Redis did not confirm; `tokens_not_loaded`: PostgreSQL was away at start; "
            "`internal_error`: see the log.",
            runbook="TheEyeAcceptErrorBudgetBurn",
            width=12,
            queries=(
                Query(rate("the_eye_http_refusals_total", by="code"), "{{code}}"),
                Query(rate("the_eye_events_refused_total", by="code"), "event: {{code}}"),
                Query(rate("the_eye_token_refusals_total", by="code"), "token: {{code}}"),
            ),
            unit="cps",
        ),
    ),
)

LATENCY_ROW = Row(
    id=30,
    title="Latency",
    panels=(
        Graph(
            id=31,
            title="Accepted to stored",
            description=f"How late events are in the database. The line is {STORED_WITHIN} s, within which "
            f"{STORED_OBJECTIVE:.0%} should be stored.",
            runbook="TheEyeFreshnessBudgetBurn",
            width=12,
            queries=tuple(Query(quantile(share, STORED_AFTER), name) for share, name in ((0.5, "p50"), (0.99, "p99"))),
            unit="s",
            limits={STORED_WITHIN: "red"},
            colors={"p50": "green", "p99": "orange"},
        ),
        Graph(
            id=32,
            title=f"Stored within {STORED_WITHIN} s",
            description=f"Share of events that were stored within {STORED_WITHIN} s. The line is the objective.",
            runbook="TheEyeFreshnessBudgetBurn",
            width=12,
            queries=(Query(_within("$__rate_interval"), f"within {STORED_WITHIN} s"),),
            unit="percentunit",
            most=1,
            limits={STORED_OBJECTIVE: "red"},
        ),
        Graph(
            id=33,
            title="Answering requests",
            description="Time to answer a request that sends events; most of it is Redis writing to its disk. If it "
            "rises, compare with *Write to the queue* in Runtime.",
            runbook="TheEyeAcceptLatencyBudgetBurn",
            width=12,
            queries=tuple(
                Query(quantile(share, "the_eye_http_request_duration_seconds", by="route"), f"{name} {{{{route}}}}")
                for share, name in ((0.5, "p50"), (0.99, "p99"))
            ),
            unit="s",
        ),
        Graph(
            id=34,
            title="Requests by status",
            description="Answers a second. 202: on disk. 4xx: the sender's to repair; 429: over its limit. 503: not "
            "certain to be on disk, to be sent again.",
            runbook="TheEyeAcceptErrorBudgetBurn",
            width=12,
            queries=(Query(or_zero(rate(REQUESTS, by="status"), API, by="status"), "{{status}}"),),
            unit="reqps",
            stacked=True,
            colors={"202": "green", "400": "yellow", "401": "purple", "429": "orange", "503": "red", "500": "dark-red"},
        ),
    ),
)

BACKLOG_ROW = Row(
    id=40,
    title="Backlog",
    panels=(
        Graph(
            id=41,
            title="Events that wait",
            description="Events in the queue, those in work included. It has no value while there are too many "
            "messages to count; the bytes beside it always do.",
            runbook="TheEyeBacklogNotDraining",
            width=8,
            queries=(
                Query(single("the_eye_backlog_events"), "counted in the queue"),
                Query(_unfinished(), "accepted without an outcome"),
            ),
            unit="short",
        ),
        Graph(
            id=42,
            title="Messages by state",
            description="Ready: no worker has taken them. Unacknowledged: in work. Delayed: put off, such as replays "
            "that wait for fresh events to be through.",
            runbook="TheEyeBacklogNotDraining",
            width=8,
            queries=(Query(single("the_eye_backlog_messages", by="state"), "{{state}}"),),
            unit="short",
            stacked=True,
        ),
        Graph(
            id=43,
            title="Bytes that wait",
            description="Memory of the backlog, estimated by Redis, and the limit (THE_EYE_BACKLOG_MAX_BYTES) at which "
            "events are refused with 503 until there is room.",
            runbook="TheEyeBacklogFillsSoon",
            width=8,
            queries=(
                Query(single("the_eye_backlog_bytes"), "bytes"),
                Query(f"max({select('the_eye_backlog_max_bytes')})", "limit"),
            ),
            unit="bytes",
            colors={"limit": "red"},
        ),
        Graph(
            id=44,
            title="Oldest waiting",
            description="Age of the oldest message that no worker has finished. A straight line upwards: no worker "
            "takes anything, or nobody takes that message.",
            runbook="TheEyeBacklogNotDraining",
            width=8,
            queries=(Query(f"max({select('the_eye_backlog_age_seconds')})", "oldest"),),
            unit="s",
            limits={STORED_WITHIN: "red"},
        ),
        Stat(
            id=45,
            title="Time to drain",
            description="How long what waits will take at the rates of the last two minutes. If it does not drain, "
            "add workers or find what holds them.",
            runbook="TheEyeBacklogNotDraining",
            width=4,
            height=8,
            query=_drains_in(),
            unit="s",
            decimals=1,
            steps={0: "green", 60: "orange", 600: "red"},
            texts={NEVER: "does not drain"},
            missing="unknown",
        ),
        Stat(
            id=46,
            title="Queue full",
            description="1 while an API refuses events because the queue is full or too old. Senders are told when to "
            "come back.",
            runbook="TheEyeQueueFull",
            width=4,
            height=8,
            query=f"max({select('the_eye_backlog_full')})",
            unit="bool_yes_no",
            steps={0: "green", 1: "red"},
            missing="unknown",
        ),
        Graph(
            id=47,
            title="Ledger difference",
            description="Accepted less outcomes less queued, read in one moment. Above 0: events are lost. Below 0: "
            "more outcomes than were accepted. Off 0 it stays there until `the-eye ledger settle` writes off what was "
            "looked into. Falls: how often in six hours Redis has lost what it held, the ledger with it.",
            runbook="TheEyeLedgerDifference",
            width=8,
            queries=(
                Query(single(DIFFERENCE), "difference"),
                Query(single(LEDGER, 'state="lost"'), "written off"),
                Query(_falls(), "falls of the ledger"),
            ),
            unit="short",
            least=None,
            colors={"difference": "red", "written off": "text", "falls of the ledger": "orange"},
        ),
    ),
)

REPLICAS_ROW = Row(
    id=50,
    title="Replicas",
    panels=(
        Graph(
            id=51,
            title="API: replicas",
            description="APIs that Prometheus sees, and what the autoscaler wants. Wanted at the most for long: raise "
            "maxReplicas. Seen below wanted: pods do not start or are not scraped. On one machine there is no "
            "autoscaler.",
            runbook="TheEyeApiAbsent",
            width=8,
            queries=_replicas("api"),
            unit="short",
        ),
        Graph(
            id=52,
            title="Workers: replicas",
            description="As for the API. More workers help only while PostgreSQL has capacity.",
            runbook="TheEyeWorkerAbsent",
            width=8,
            queries=_replicas("worker"),
            unit="short",
        ),
        Graph(
            id=53,
            title="Autoscalers: metric against target",
            description="Each metric that replicas follow, as a share of its target: above 100 % pods are added. No "
            "value: the autoscaler does not get its metric, see `kubectl describe hpa`.",
            width=8,
            queries=(
                Query(
                    f"{_scaled('status_target_metric')} / {_scaled('spec_target_metric')}",
                    "{{horizontalpodautoscaler}} {{metric_name}}",
                ),
            ),
            unit="percentunit",
            limits={1: "orange"},
        ),
    ),
)

BOARD = Board(
    uid="the-eye-overview",
    title="The Eye: overview",
    description="Whether events are lost, how late they are, and what to do.",
    choices=(
        NAMESPACE,
        Choice(
            name="application",
            title="Application",
            description="For what is shown by application.",
            metric=ACCEPTED,
            label="application",
        ),
    ),
    rows=(NOW_ROW, THROUGHPUT_ROW, LATENCY_ROW, BACKLOG_ROW, REPLICAS_ROW),
)
