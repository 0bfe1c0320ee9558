"""The dashboard of the platform engineers: whether the rules are in force, and what they find."""

from observability.dashboards.panels import NAMESPACE, NEUTRAL, Board, Choice, Graph, Query, Row, Stat
from observability.dashboards.promql import OPERATOR as OPERATORS
from observability.dashboards.promql import WORKER, or_zero, quantile, rate, select, total

VIOLATIONS = "the_eye_violations_total"
RULE = 'rule=~"$rule"'
OPERATOR = "the_eye_operator"

NO_OPERATOR = "no operator"
"""On one machine the workers read the rules from files."""

_JUDGED = rate("the_eye_events_total", 'outcome=~"valid|invalid"')
_INVALID = or_zero(rate("the_eye_events_total", 'outcome="invalid"'), WORKER)
_UNMATCHED = or_zero(rate("the_eye_events_unmatched_total"), WORKER)

_BEGINNING = f'label_replace({select("the_eye_ruleset_info")} == 1, "ruleset", "$1", "revision", "sha256:(.{{12}}).*")'
_SPREAD = f"count by (ruleset) ({_BEGINNING})"
"""Twelve digits tell rulesets apart, and leave room in the legend."""

FORCE_ROW = Row(
    id=10,
    title="Are the rules in force?",
    panels=(
        Stat(
            id=11,
            title="Rules in force",
            description="Rules that the workers judge by. Fewer than were declared: some were refused, see beside.",
            width=4,
            query=f"max({select('the_eye_ruleset_rules')})",
            unit="short",
            steps={0: "red", 1: "green"},
            missing="no worker",
        ),
        Stat(
            id=12,
            title="Rulesets at once",
            description="Different rulesets that workers run. 2 for some seconds is a change on its way; for longer, "
            "some worker does not see it: see *Workers by ruleset*.",
            runbook="TheEyeRulesetSplit",
            width=4,
            query=f"count(count by (revision) ({select('the_eye_ruleset_info')} == 1))",
            unit="short",
            steps={0: "green", 2: "orange"},
            missing="no worker",
        ),
        Stat(
            id=13,
            title="Changed",
            description="Time since a worker last took another ruleset. Compare it with when you last changed a rule.",
            runbook="TheEyeRulesetStale",
            width=4,
            query=f"time() - max({select('the_eye_ruleset_loaded_timestamp_seconds')})",
            unit="s",
            steps={0: "green"},
            missing="no worker",
        ),
        Stat(
            id=14,
            title="Refused",
            description="Rules or files that workers could not take; the last good version of each stays in force. The "
            "worker's log and `GET /ruleset` name them and say why.",
            runbook="TheEyeRulesRefused",
            width=4,
            query=f"max({select('the_eye_rule_problems')})",
            unit="short",
            steps={0: "green", 1: "orange"},
            missing="no worker",
        ),
        Stat(
            id=15,
            title="Refused by the operator",
            description="ValidatorRules with an error, whether or not an earlier version is in force. "
            "`kubectl get validatorrules` shows which; the condition Accepted says why.",
            runbook="TheEyeRulesRefused",
            width=4,
            query=total(f"{OPERATOR}_rules", 'state=~"kept|refused"'),
            unit="short",
            steps={0: "green", 1: "orange"},
            missing=NO_OPERATOR,
            missing_color=NEUTRAL,
        ),
        Stat(
            id=16,
            title="Operator last succeeded",
            description="Time since its last reconcile that succeeded; it makes one every two minutes at least. While "
            "it is silent the last ruleset stays in force and no change of a rule takes effect.",
            runbook="TheEyeOperatorSilent",
            width=4,
            query=f"time() - max({select(f'{OPERATOR}_last_success_timestamp_seconds')})",
            unit="s",
            steps={0: "green", 240: "orange", 600: "red"},
            missing=NO_OPERATOR,
            missing_color=NEUTRAL,
        ),
    ),
)

FINDINGS_ROW = Row(
    id=20,
    title="What the rules find",
    panels=(
        Graph(
            id=21,
            title="Violations by rule",
            description="The ten rules that are violated most, of those chosen above. One that rises alone: that rule "
            "or the sender of its events has changed; `GET /events?rule=NAMESPACE/NAME` shows events.",
            width=12,
            queries=(Query(or_zero(f"topk(10, {rate(VIOLATIONS, RULE, by='rule')})", WORKER, by="rule"), "{{rule}}"),),
            unit="cps",
        ),
        Graph(
            id=22,
            title="Audit against enforce",
            description="Violations of rules in Enforce make events invalid; those of rules in Audit are only "
            "recorded. A rule whose audit line is as low as you expect can be enforced.",
            width=12,
            queries=tuple(
                Query(or_zero(rate(VIOLATIONS, RULE, f'action="{action}"'), WORKER), action)
                for action in ("Enforce", "Audit")
            ),
            unit="cps",
            stacked=True,
            colors={"Enforce": "red", "Audit": "blue"},
        ),
        Graph(
            id=23,
            title="Invalid and unmatched",
            description="Share of stored events that are invalid, and that no rule matched. Unmatched that rises: a "
            "sender uses a new category or name, or a rule's match was changed.",
            width=12,
            queries=(
                Query(f"({_INVALID}) / ({_JUDGED} > 0)", "invalid"),
                Query(f"({_UNMATCHED}) / ({_JUDGED} > 0)", "unmatched"),
            ),
            unit="percentunit",
            most=1,
            colors={"invalid": "orange", "unmatched": "purple"},
        ),
        Graph(
            id=24,
            title="Ignored checks",
            description="Checks that could not be evaluated and whose failurePolicy is Ignore: such a rule says "
            "nothing of these events. Repair its expression, for example by asking with has() first.",
            width=12,
            queries=(
                Query(or_zero(rate("the_eye_checks_ignored_total", RULE, by="rule"), WORKER, by="rule"), "{{rule}}"),
            ),
            unit="cps",
        ),
    ),
)

SPREAD_ROW = Row(
    id=30,
    title="How a change reaches the workers",
    panels=(
        Graph(
            id=31,
            title="Workers by ruleset",
            description="Workers that run each ruleset. A change moves them from one to the next within seconds; two "
            "bands for long are workers that do not see it.",
            runbook="TheEyeRulesetSplit",
            width=12,
            queries=(Query(_SPREAD, "{{ruleset}}"),),
            unit="short",
            stacked=True,
        ),
        Graph(
            id=32,
            title="Workers as the operator sees them",
            description="Ready workers that run the published ruleset, and those that do not yet. None on one machine.",
            runbook="TheEyeRulesetSplit",
            width=12,
            queries=(Query(total(f"{OPERATOR}_workers", by="state"), "{{state}}"),),
            unit="short",
            stacked=True,
            colors={"current": "green", "behind": "orange"},
        ),
    ),
)

OPERATOR_ROW = Row(
    id=40,
    title="Operator",
    panels=(
        Graph(
            id=41,
            title="Rules by state",
            description="Accepted: in force. Paused: frozen by the-eye.io/paused. Kept: refused, with an earlier "
            "version in force. Refused: none in force.",
            runbook="TheEyeRulesRefused",
            width=8,
            queries=(Query(total(f"{OPERATOR}_rules", by="state"), "{{state}}"),),
            unit="short",
            stacked=True,
            colors={"accepted": "green", "paused": "blue", "kept": "orange", "refused": "red"},
        ),
        Graph(
            id=42,
            title="Reconciles",
            description="Reconciles a second by how they ended. Errors that repeat: its log names the cause.",
            runbook="TheEyeOperatorAbsent",
            width=8,
            queries=(
                Query(
                    or_zero(rate(f"{OPERATOR}_reconciles_total", by="outcome"), OPERATORS, by="outcome"), "{{outcome}}"
                ),
            ),
            unit="ops",
            colors={"success": "green", "error": "red"},
        ),
        Graph(
            id=43,
            title="Time of a reconcile",
            description="It grows with the number of rules; above its interval of two minutes changes queue up.",
            width=8,
            queries=tuple(
                Query(quantile(share, f"{OPERATOR}_reconcile_duration_seconds"), name)
                for share, name in ((0.5, "p50"), (0.99, "p99"))
            ),
            unit="s",
        ),
        Graph(
            id=44,
            title="Errors of the Kubernetes API",
            description="Calls that were refused or not answered, by status. 403: its Role lacks something. none: no "
            "answer.",
            width=8,
            queries=(
                Query(or_zero(rate(f"{OPERATOR}_api_errors_total", by="status"), OPERATORS, by="status"), "{{status}}"),
            ),
            unit="ops",
        ),
        Graph(
            id=45,
            title="Watching",
            description="Times that watching had to begin anew, and changes that only a list found. Both are made good "
            "by themselves; many of them delay changes by up to two minutes.",
            width=8,
            queries=(
                Query(or_zero(rate(f"{OPERATOR}_watch_restarts_total"), OPERATORS), "restarts"),
                Query(or_zero(rate(f"{OPERATOR}_missed_changes_total"), OPERATORS), "missed changes"),
            ),
            unit="ops",
        ),
        Stat(
            id=46,
            title="Ruleset",
            description="Size of the published ruleset. It is split over ConfigMaps below 0.5 MiB each.",
            width=4,
            height=8,
            query=f"max({select(f'{OPERATOR}_ruleset_bytes')})",
            unit="bytes",
            steps={0: "green"},
            missing=NO_OPERATOR,
            missing_color=NEUTRAL,
        ),
        Stat(
            id=47,
            title="Definition",
            description="Whether the API server knows ValidatorRules. If not, install the chart's definition; the last "
            "ruleset stays in force meanwhile.",
            width=4,
            height=8,
            query=f"1 - max({select(f'{OPERATOR}_definition_missing')})",
            unit="bool_yes_no",
            steps={0: "red", 1: "green"},
            missing=NO_OPERATOR,
            missing_color=NEUTRAL,
        ),
    ),
)

BOARD = Board(
    uid="the-eye-rules",
    title="The Eye: rules",
    description="Whether the declared rules are in force, and what they find.",
    choices=(
        NAMESPACE,
        Choice(
            name="rule",
            title="Rule",
            description="For what is shown by rule.",
            metric=VIOLATIONS,
            label="rule",
        ),
    ),
    rows=(FORCE_ROW, FINDINGS_ROW, SPREAD_ROW, OPERATOR_ROW),
)
