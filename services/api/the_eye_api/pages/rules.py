"""The page of rules: those that the workers' directory holds, one of them, and a box to try one."""

import asyncio
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, urlencode
from uuid import uuid4

import msgspec
from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from the_eye.rules.documents import write_document
from the_eye.rules.listing import ListedRule, Listing, plain_manifest
from the_eye.rules.manifest import Match, ValidatorRule
from the_eye.rules.trial import MAX_JUDGED, PROGRAM, Trial, TrialRequest, TriedEvent
from the_eye.store.event_query import application_names
from the_eye.store.problems import MAX_EVENTS, read_problems
from the_eye.store.rule_counts import RuleCounts, count_rules, judged_last
from the_eye.store.sign_ins import SignedIn
from the_eye.verdict import Action
from the_eye_api.pages.children import ChildError
from the_eye_api.pages.event import placed
from the_eye_api.pages.payload import read_lines
from the_eye_api.pages.problems import trends_of
from the_eye_api.pages.rendering import html, render
from the_eye_api.pages.ruleset import Known
from the_eye_api.pages.site import Site
from the_eye_api.pages.state import DEFAULT_RANGE, RANGE_NAMES, RANGES, read_state
from the_eye_api.problems import problem
from the_eye_api.queries import reading

PAGE_RULES = 50

TRIAL_SECONDS = 15.0
STORE_SECONDS = 5.0
PROCESSOR_SECONDS = 5
MEMORY_BYTES = 256 * 1024 * 1024
OUTPUT_BYTES = 4 * 1024 * 1024

MAX_YAML_BYTES = 16 * 1024
"""The largest manifest, as JSON without spaces, that is shown as YAML: that takes a hundred times as long to write."""

NEW_RULE = """\
apiVersion: the-eye.io/v1alpha1
kind: ValidatorRule
metadata:
  name: new-rule
  namespace: default
spec:
  match:
    category: page interaction
    name: "*"
  schema:
    type: object
    required: [host]
  validations:
    - expression: event.data.host.endsWith('.example.com')
      message: host must be ours
"""
NEW_RULE_ID = "default/new-rule"

Outcome: TypeAlias = bytes | str | None
"""What came of a trial, as JSON, or why nothing did; None before there is one."""

AnyRequest = Request[Any, Any, Any]
User = NamedDependency[SignedIn]
TheSite = NamedDependency[Site]


class RuleQuery(msgspec.Struct, frozen=True):
    """What a URL asks of the list; what it says wrongly counts as not said."""

    text: str = ""
    action: str = ""
    order: str = ""
    """Empty, by id; or ``violated``, the most violated first."""
    last: str = DEFAULT_RANGE
    page: int = 1

    @classmethod
    def read(cls, query: bytes) -> "RuleQuery":
        """Read it."""
        given = dict(parse_qsl(query.decode(errors="replace")))
        page = given.get("page", "")
        return cls(
            text=given.get("text", "").strip(),
            action=given.get("action", "") if given.get("action") in list(Action) else "",
            order="violated" if given.get("order") == "violated" else "",
            last=given.get("last", "") if given.get("last") in RANGES else DEFAULT_RANGE,
            page=max(1, int(page)) if re.fullmatch("[0-9]{1,6}", page) else 1,
        )

    @property
    def since(self) -> datetime | None:
        """Where the range of the counts begins; None is the beginning of all events."""
        length = RANGES[self.last]
        return None if length is None else datetime.now(UTC) - length

    def with_page(self, page: int) -> str:
        """Write the URL's query for another page."""
        given = {**msgspec.structs.asdict(self), "page": page}
        return urlencode({name: value for name, value in given.items() if value})


class RulePage(msgspec.Struct, frozen=True):
    """Some of the rules that are asked for."""

    rules: Sequence[ListedRule]
    number: int
    """From 1."""
    found: int
    """How many there are in all."""

    @property
    def first(self) -> int:
        """Which of them the first one is, from 1."""
        return (self.number - 1) * PAGE_RULES + 1

    @property
    def last(self) -> int:
        """Which of them the last one is."""
        return self.first + len(self.rules) - 1


def page_of(listing: Listing, query: RuleQuery, counts: RuleCounts) -> RulePage:
    """Choose and order rules."""
    wanted = query.text.lower()
    found = [
        rule for rule in listing.rules if query.action in ("", rule.action) and (not wanted or wanted in rule.text)
    ]
    if query.order:
        found.sort(key=lambda rule: -counts.events_of(rule.id))  # stable: those alike stay by id
    number = min(query.page, max(1, -(-len(found) // PAGE_RULES)))
    return RulePage(found[(number - 1) * PAGE_RULES : number * PAGE_RULES], number, len(found))


@get("/rules")
async def get_rules(request: AnyRequest, user: User, site: TheSite) -> Response[str]:
    """List the rules."""
    query = RuleQuery.read(request.scope["query_string"])
    known = await site.ruleset.look()
    async with reading(site.pool) as connection:
        counts = await count_rules(connection, query.since)
        judged = await judged_last(connection)
    context = {
        "query": query,
        "ranges": RANGE_NAMES,
        "actions": list(Action),
        "known": known,
        "counts": counts,
        "judged": judged,
        "most": MAX_EVENTS,
    }
    return html(await asyncio.to_thread(_list_page, request, user, known.listing, context))


def _list_page(request: AnyRequest, user: SignedIn, listing: Listing | None, context: Mapping[str, Any]) -> str:
    """Beside the event loop: there may be thousands of rules to look through."""
    query, counts = context["query"], context["counts"]
    page = page_of(listing, query, counts) if listing else None
    shown = {
        "listing": listing,
        "page": page,
        "files": len({rule.file for rule in listing.rules}) if listing else 0,
        "unlisted": _unlisted(listing, counts),
    }
    return render(request, "rules.html", user, **shown, **context)


def _unlisted(listing: Listing | None, counts: RuleCounts) -> list[str]:
    """What is violated and stands in no file: it is built in, or gone."""
    listed = {rule.id for rule in listing.rules} if listing else set()
    return sorted(counts.by_rule.keys() - listed) if listing else []


@get("/rules/{namespace:str}/{name:str}")
async def get_rule(
    request: AnyRequest, namespace: FromPath[str], name: FromPath[str], user: User, site: TheSite
) -> Response[str]:
    """Show a rule's source, and what violates it."""
    known = await site.ruleset.look()
    wanted = f"{namespace}/{name}"
    rule = next((one for one in known.listing.rules if one.id == wanted), None) if known.listing else None
    if rule is None:
        raise problem(HTTPStatus.NOT_FOUND, "unknown_rule", _why_not_there(wanted, known))
    state = read_state(request.scope["query_string"], datetime.now(UTC))
    async with reading(site.pool) as connection:
        found = await read_problems(connection, state.since, rule=rule.id)
        applications = await application_names(connection)
    context = {
        "state": state,
        "ranges": RANGE_NAMES,
        "rule": rule,
        "found": found,
        "trends": trends_of(found, state),
        "applications": applications,
    }
    return html(await asyncio.to_thread(_rule_page, request, user, rule, context))


def _why_not_there(rule: str, known: Known) -> str:
    if known.reading:
        return "The rules are being read just now: try again in a few seconds."
    return f"The workers' directory holds no sound rule {rule[:320]}. {known.failure}".strip()


def _rule_page(request: AnyRequest, user: SignedIn, rule: ListedRule, context: Mapping[str, Any]) -> str:
    """Beside the event loop: a large schema takes it a while."""
    manifest = rule.manifest()
    spec = manifest.spec
    schema = read_lines(msgspec.json.encode(spec.schema), "") if isinstance(spec.schema, dict) else None
    source = source_of(manifest)
    box = _box(source, rule.id, rule.match)
    shown = {"schema": schema, "spec": spec, "source": source, "box": box}
    return render(request, "rule.html", user, **shown, **_shown(None), **context)


def source_of(manifest: ValidatorRule) -> str:
    """Write what its author would write, as YAML; as JSON where it is large."""
    plain = plain_manifest(manifest)
    document = msgspec.json.encode(plain)
    return write_document(plain) if len(document) <= MAX_YAML_BYTES else msgspec.json.format(document).decode()


def _box(rule: str, known_as: str, match: Match) -> dict[str, str]:
    application = match.applications[0] if match.applications else ""
    return {"rule": rule, "known_as": known_as, "event": example_event(match), "application": application}


def example_event(match: Match) -> str:
    """Write an event that a rule with this match is for, as it would be sent."""
    event = {
        "session_id": str(uuid4()),
        "category": _example(match.category),
        "name": _example(match.name),
        "data": {},
        "timestamp": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
    }
    return msgspec.json.format(msgspec.json.encode(event), indent=2).decode()


_WILD = re.compile(r"\[[^\]]*\]|[*?]")


def _example(pattern: str) -> str:
    return _WILD.sub("x", pattern)


@get("/rules/try")
async def get_trial(request: AnyRequest, user: User, site: TheSite) -> Response[str]:
    """Offer to try a rule that is not there yet."""
    box = _box(NEW_RULE, NEW_RULE_ID, Match(category="page interaction"))
    return await _trial_page(request, user, site, box)


async def _trial_page(
    request: AnyRequest, user: SignedIn, site: Site, box: Mapping[str, str], outcome: Outcome = None
) -> Response[str]:
    async with reading(site.pool) as connection:
        applications = await application_names(connection)
    return html(
        await asyncio.to_thread(_render_trial, request, user, outcome, {"box": box, "applications": applications})
    )


def _render_trial(request: AnyRequest, user: SignedIn, outcome: Outcome, context: Mapping[str, Any]) -> str:
    """Beside the event loop: an event of a megabyte takes it a while."""
    trial = msgspec.json.decode(outcome, type=Trial) if isinstance(outcome, bytes) else outcome
    return render(request, "trial.html", user, **_shown(trial), **context)


def _shown(outcome: Trial | str | None) -> dict[str, Any]:
    """What the box shows of an outcome."""
    shown = {"trial": outcome, "kind": type(outcome).__name__, "most_judged": MAX_JUDGED}
    if not isinstance(outcome, TriedEvent):
        return shown
    payload = read_lines(bytes(outcome.data), "$.data")
    beside, elsewhere = placed(payload, outcome.violations)
    return {**shown, "payload": payload, "beside": beside, "elsewhere": elsewhere}


@post("/rules/try")
async def post_trial(request: AnyRequest, admin: User, site: TheSite) -> Response[str]:
    """Try a rule on the pasted event, or on stored ones."""
    form = await request.form()
    box = {field: str(form.get(field, "")) for field in ("rule", "event", "application", "known_as")}
    wanted = TrialRequest(
        rule=box["rule"],
        known_as=box["known_as"],
        event=None if form.get("on") == "stored" else box["event"],
        application=box["application"],
        store_seconds=STORE_SECONDS,
        processor_seconds=PROCESSOR_SECONDS,
        memory_bytes=MEMORY_BYTES,
    )
    try:
        outcome: Outcome = await site.children.run(
            PROGRAM,
            msgspec.json.encode(wanted),
            seconds=TRIAL_SECONDS,
            output_bytes=OUTPUT_BYTES,
            reads_store=wanted.event is None,
        )
    except ChildError as error:
        outcome = str(error)
    return await _trial_page(request, admin, site, box, outcome)


handlers: Iterable[Any] = (get_rules, get_rule, get_trial, post_trial)
