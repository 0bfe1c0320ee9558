"""The load test's traffic, what it makes of answers, and what it says at the end. Locust itself is not needed here."""

import gzip
import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import UUID

import msgspec
import pytest
import yaml
from tests.chart.pod_security import faults
from tests.load.loadtest import asking, traffic
from tests.load.loadtest.answers import Asked, Broken, Outcome, Rejected, Settled, read
from tests.load.loadtest.running import Run
from tests.load.loadtest.tally import Agreement, Stored, Tally, Times, summary
from tests.load.loadtest.traffic import Event, Fate, Session, array, lines, marked, pick, single, users_at
from tests.unit.rules.making import TOLERANCE
from tests.unit.rules.making import event as accepted_event

from the_eye.event import SentEvent, parse_event
from the_eye.rules.directory import RuleDirectory
from the_eye.rules.ruleset import RuleSet

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
MARK = 0xC0FFEE
EVENTS = 20_000
SAMPLES = Path(__file__).parents[3] / "k8s" / "rules"


def make_events(count: int, seed: int = 1) -> list[Event]:
    """Make the same events each time, session after session."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    made: list[Event] = []
    while len(made) < count:
        session = Session(chance, MARK)
        made += [session.event(NOW) for _ in range(session.left)]
    return made[:count]


@pytest.fixture(scope="module")
def events() -> list[Event]:
    """A lot of traffic."""
    return make_events(EVENTS)


@pytest.fixture(scope="module")
def samples() -> RuleSet:
    """The rules of ``make up``."""
    directory = RuleDirectory(SAMPLES, poll_seconds=1, future_tolerance=TOLERANCE)
    directory.load()
    assert directory.problems == ()
    return directory.current


def violations(samples: RuleSet, event: SentEvent) -> set[str]:
    """Judge an event that arrives now; gives the rules that it breaks."""
    judged = accepted_event(bytes(event.data), category=event.category, name=event.name, timestamp=event.timestamp)
    return {violation.rule for violation in samples.judge(judged).violations}


def test_each_event_is_what_it_is_called(events: list[Event], samples: RuleSet) -> None:
    """Valid ones break no sample rule, invalid ones break one, and the others are refused."""
    broken: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    for event in events:
        parsed = parse_event(event.body)
        if isinstance(parsed, tuple):
            refused[parsed[0].code] += 1
            assert event.fate is Fate.REFUSED, event
        else:
            rules = violations(samples, parsed)
            broken.update(rules)
            assert event.fate is (Fate.INVALID if rules else Fate.VALID), event

    assert len(broken) == len(traffic.BREACHES)
    assert sum(broken.values()) == sum(event.fate is Fate.INVALID for event in events)
    assert len(refused) >= len(traffic.FAULTS) - 1


def test_shares_are_what_they_are_said_to_be(events: list[Event]) -> None:
    fates = Counter(event.fate for event in events)
    kinds = Counter((event["category"], event["name"]) for event in decoded(events) if "name" in event)

    assert fates[Fate.INVALID] / EVENTS == pytest.approx(traffic.INVALID, rel=0.2)
    assert fates[Fate.REFUSED] / EVENTS == pytest.approx(traffic.REFUSED, rel=0.3)
    for kind in traffic.KINDS:
        share = kind.share / sum(one.share for one in traffic.KINDS)
        assert kinds[kind.category, kind.name] / EVENTS == pytest.approx(share, abs=0.02)


def test_sessions_are_many_and_of_many_lengths(events: list[Event]) -> None:
    lengths = Counter(event.get("session_id", event.get("sessionId")) for event in decoded(events))

    assert sum(lengths.values()) / len(lengths) == pytest.approx(traffic.EVENTS_PER_SESSION, rel=0.15)
    assert len(set(lengths.values())) > 20


def test_events_of_a_run_are_told_by_their_ids(events: list[Event]) -> None:
    ids = [UUID(event["event_id"]) for event in decoded(events)]

    assert all(marked(one, {MARK}) for one in ids)
    assert not any(marked(one, {MARK + 1}) for one in ids)
    assert len(set(ids)) == len(ids)


def test_an_app_sends_what_happened_until_now() -> None:
    for seed in range(50):
        session = Session(random.Random(seed), MARK)  # noqa: S311
        gathered = session.gathered(NOW)
        times = [
            event.timestamp
            for one in gathered
            if one.fate is Fate.VALID and isinstance(event := parse_event(one.body), SentEvent)
        ]
        assert 1 <= len(gathered) <= traffic.MOST_GATHERED
        assert times == sorted(times)
        assert times[0] >= NOW - timedelta(seconds=traffic.MOST_GATHERED * traffic.LONGEST_THINK_SECONDS)
        assert times[-1] <= NOW


def test_requests_hold_their_events() -> None:
    events = make_events(50)
    bodies = [json.loads(event.body) for event in events]
    one, many, ndjson = single(events[0]), array(events), lines(events)

    assert (one.path, json.loads(one.body)) == ("/events", bodies[0])
    assert (many.path, json.loads(gzip.decompress(many.body))) == ("/events/batch", bodies)
    assert [json.loads(line) for line in gzip.decompress(ndjson.body).splitlines()] == bodies
    assert one.fates == (events[0].fate,)
    assert many.fates == ndjson.fates == tuple(event.fate for event in events)
    assert {request.headers["Content-Type"] for request in (one, many, ndjson)} == {
        "application/json",
        "application/x-ndjson",
    }


def test_applications_send_unevenly_and_all_of_them_do() -> None:
    chance = random.Random(1)  # noqa: S311
    picked = Counter(pick(chance, 8) for _ in range(10_000))

    assert set(picked) == set(range(8))
    assert picked[0] / picked[1] == pytest.approx(2, rel=0.15)
    assert picked[0] / picked[7] == pytest.approx(8, rel=0.3)


def test_people_take_their_time() -> None:
    chance = random.Random(1)  # noqa: S311
    times = sorted(traffic.think_seconds(chance) for _ in range(2_000))

    assert times[1_000] == pytest.approx(traffic.THINK_SECONDS, rel=0.1)
    assert times[-1] <= traffic.LONGEST_THINK_SECONDS


def test_a_day_goes_from_night_to_noon_and_back() -> None:
    users = [users_at(step / 100, 1_000) for step in range(101)]

    assert (users[0], users[50], users[100]) == (100, 1_000, 100)
    assert users == users[::-1]
    assert users[:51] == sorted(users[:51])
    assert users_at(0.0, 1) == 1


GOOD = Event(b"{}", Fate.VALID)
BAD = Event(b"{}", Fate.REFUSED)
BROKEN_RULE = Event(b"{}", Fate.INVALID)
ONE = single(GOOD)
SOME = array([GOOD, BAD, BROKEN_RULE])
FAULT = {"path": "$.session_id", "code": "invalid_uuid", "message": ""}
REFUSED_OF_SOME = {"accepted": 2, "refused": [{"index": 1, "errors": [FAULT]}]}


def malformed(*faults: tuple[str, str]) -> dict[str, Any]:
    """Make what the API says of a request with no good event."""
    errors = [{"path": path, "code": code, "message": ""} for path, code in faults]
    return {"status": 400, "title": "", "code": "malformed", "errors": errors}


@pytest.mark.parametrize(
    ("request_", "status", "body", "expected"),
    [
        (ONE, 202, {"event_id": "x"}, Settled(Counter({Fate.VALID: 1}), Counter(), ())),
        (
            SOME,
            202,
            REFUSED_OF_SOME,
            Settled(Counter({Fate.VALID: 1, Fate.INVALID: 1}), Counter({"invalid_uuid": 1}), ()),
        ),
        (
            single(BAD),
            400,
            malformed(("$.name", "invalid_length"), ("$.data", "invalid_type")),
            Settled(Counter(), Counter({"invalid_length": 1}), ()),
        ),
        (
            array([BAD, BAD]),
            400,
            malformed(("$[0].name", "a"), ("$[0].data", "b"), ("$[1].data", "c")),
            Settled(Counter(), Counter({"a": 1, "c": 1}), ()),
        ),
        (
            single(BAD),
            202,
            {"event_id": "x"},
            Settled(Counter({Fate.REFUSED: 1}), Counter(), ("accepted, though malformed",)),
        ),
        (
            ONE,
            400,
            malformed(("$.name", "a")),
            Settled(Counter(), Counter({"a": 1}), ("refused, though well-formed: a",)),
        ),
        (ONE, 503, {"code": "queue_unavailable"}, Asked("503 queue_unavailable", 1.0)),
        (ONE, 500, {"code": "internal"}, Broken("500 internal")),
        (ONE, 0, None, Broken("no answer")),
        (ONE, 401, {"code": "invalid_token"}, Rejected("401 invalid_token")),
    ],
)
def test_an_answer_is_understood(
    request_: traffic.Request, status: int, body: dict[str, Any] | None, expected: Outcome
) -> None:
    assert read(request_, status, {}, None if body is None else json.dumps(body).encode()) == expected


def test_the_time_to_wait_is_the_servers() -> None:
    def asked(headers: Mapping[str, str]) -> Outcome:
        return read(ONE, HTTPStatus.TOO_MANY_REQUESTS, headers, b'{"code": "rate_limited"}')

    assert asked({"Retry-After": "7"}) == Asked("429 rate_limited", 7.0)
    assert asked({"Retry-After": "Fri, 27 Nov 2026 20:00:00 GMT"}) == Asked("429 rate_limited", 1.0)


def test_what_a_proxy_says_is_understood_as_little_as_it_says() -> None:
    page = b"<html>Bad Gateway</html>"
    assert read(ONE, 502, {}, page) == Broken("502 no problem details")
    assert read(ONE, 400, {}, page) == Rejected("400 no problem details")


def tally_of(*outcomes: Outcome, application: int = 0) -> Tally:
    """Count answers to a request of three events."""
    tally = Tally()
    tally.sent(application, SOME)
    for outcome in outcomes:
        tally.answered(application, SOME, outcome)
    return tally


SETTLED = Settled(Counter({Fate.VALID: 1, Fate.INVALID: 1}), Counter({"invalid_uuid": 1}), ())


def test_processes_are_added_up() -> None:
    whole = Tally()
    for tally in (tally_of(SETTLED), tally_of(SETTLED, application=1)):
        tally.mark(7)
        whole.add(msgspec.msgpack.decode(msgspec.msgpack.encode(tally.take())))
        assert tally.take() == {}

    assert whole.by("accepted") == {"0": 2, "1": 2}
    assert whole.total("accepted", 1, Fate.INVALID) == 1
    assert whole.marks == {7}


def test_an_event_is_unanswered_until_there_is_an_answer_that_stays() -> None:
    waiting = tally_of(Broken("no answer"), Asked("503 backlog_full", 2.0))
    assert (waiting.total("unanswered", 0), waiting.by("failed"), waiting.by("asked")) == (
        3,
        {"no answer": 1},
        {"503 backlog_full": 1},
    )
    assert tally_of(Broken("no answer"), SETTLED).total("unanswered") == 0
    assert tally_of(Rejected("401 invalid_token")).total("unanswered") == 0


@pytest.mark.parametrize(
    ("outcome", "stored", "missing", "unexplained"),
    [
        (SETTLED, Stored(valid=1, invalid=1), 0, 0),
        (SETTLED, Stored(valid=1), 1, 0),
        (SETTLED, Stored(valid=2, invalid=1), 0, 1),
        (Broken("no answer"), Stored(valid=2, invalid=1), 0, 0),
        (Broken("no answer"), Stored(valid=4), 0, 1),
        (SETTLED, Stored(unread="403 to GET /events"), 0, 0),
    ],
)
def test_what_is_stored_is_held_against_what_was_accepted(
    outcome: Outcome, stored: Stored, missing: int, unexplained: int
) -> None:
    agreement = Agreement.of(tally_of(outcome), {0: stored})
    assert (agreement.missing, agreement.unexplained) == (missing, unexplained)


def test_one_application_does_not_make_up_for_another() -> None:
    tally = tally_of(SETTLED)
    tally.add(tally_of(SETTLED, application=1).take())
    agreement = Agreement.of(tally, {0: Stored(valid=1), 1: Stored(valid=3)})
    assert (agreement.missing, agreement.unexplained) == (1, 1)


def test_the_summary_says_what_was_sent_and_what_became_of_it() -> None:
    tally = tally_of(Asked("429 rate_limited", 1.0), SETTLED)
    tally.session()
    told = list(summary(tally, Times(2.0, 4.0, 9.0, 30.0), Agreement.of(tally, {0: Stored(valid=1)})))

    assert told == [
        "sent            3 events of 1 sessions by 1 applications in 2 s",
        "accepted        2 (1/s)",
        "refused         1 (invalid_uuid 1), as they should be",
        "asked to wait   1 (429 rate_limited 1)",
        "failed          0",
        "unanswered      0",
        "answered in     p50 4 ms, p95 9 ms, p99 30 ms",
        "stored          1: 1 valid, 0 invalid",
        "by the samples  1 valid, 1 invalid, were k8s/rules in force",
        "missing         1",
    ]


def test_the_summary_says_what_it_does_not_know() -> None:
    tally = tally_of(SETTLED)
    unread = Stored(unread="403 to GET /events: it lacks the scope read")
    told = list(summary(tally, Times(2.0, 4.0, 9.0, 30.0), Agreement.of(tally, {0: unread, 2: unread})))

    assert told[-1] == "not compared    token 1, 3: 403 to GET /events: it lacks the scope read"


class Endless(BaseHTTPRequestHandler):
    """An API with more events than anyone could read."""

    def do_GET(self) -> None:
        """Answer with a page, and with where the next one is."""
        body = b'{"events": [], "next_cursor": "on"}'
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


@pytest.fixture
def endless() -> Iterator[str]:
    """Give its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Endless) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_more_than_can_be_read_in_time_is_not_compared_and_fails(endless: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "READ_SECONDS", 0.5)
    run = Run()
    run.url, run.tokens = endless, ["eye_one", "eye_two"]
    run.begin(pace=1.0)
    for application in range(2):
        run.tally.add(tally_of(SETTLED, application=application).take())

    told = run.account(Times(2.0, 4.0, 9.0, 30.0), settle_seconds=0.25)

    assert told[-1] == "not compared    token 1, 2: more than could be read in 0.75 s"
    assert run.failed


def test_its_pods_meet_the_restricted_standard() -> None:
    documents = list(yaml.safe_load_all((SAMPLES.parent / "loadtest.yaml").read_text()))
    pods = [one["spec"]["template"]["spec"] for one in documents if one["kind"] == "Deployment"]

    assert [faults(pod) for pod in pods] == [[], []]


def test_its_pods_write_to_tmp_alone() -> None:
    documents = list(yaml.safe_load_all((SAMPLES.parent / "loadtest.yaml").read_text()))
    containers = [one["spec"]["template"]["spec"]["containers"][0] for one in documents if one["kind"] == "Deployment"]

    assert all(one["securityContext"]["readOnlyRootFilesystem"] for one in containers)
    writable = [[mount["mountPath"] for mount in one["volumeMounts"] if "readOnly" not in mount] for one in containers]
    assert writable == [["/tmp"], ["/tmp"]]  # noqa: S108 - of the pod


def decoded(events: list[Event]) -> list[dict[str, Any]]:
    """Decode what can be."""
    return [json.loads(event.body) for event in events]
