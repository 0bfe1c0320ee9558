"""The users: people before pages, people with apps, and servers that send for many people."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from gevent.event import Event
from locust import FastHttpUser, task
from tests.load.loadtest.answers import Asked, Broken, Outcome, Settled, read
from tests.load.loadtest.running import Run
from tests.load.loadtest.traffic import Request, Session, array, lines, pick, single, think_seconds

ANSWER_SECONDS = 30.0
FIRST_BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF_SECONDS = 30.0

BACKEND_SESSIONS = 20
BACKEND_EVENTS = (10, 60)

ASKED = "asked to wait"

run = Run()
over = Event()
"""Set when a test comes to its end: a request that is begun then may be cut off."""

chance = random.Random()  # noqa: S311 - no secret


class Sender(FastHttpUser):
    """Sends requests over a connection that is kept, and again where the server asks for it or fails."""

    abstract = True
    insecure = False
    network_timeout = connection_timeout = ANSWER_SECONDS

    def __init__(self, environment: Any) -> None:
        self.host = run.url  # not what was typed into the page since: the tokens are for this one
        super().__init__(environment)
        self.application = pick(chance, len(run.tokens))

    def new_session(self) -> Session:
        """Begin a session."""
        run.tally.session()
        return Session(chance, run.mark)

    def send(self, request: Request) -> None:
        """Send until there is an answer that stays: the events are the same each time, and count once."""
        if over.is_set():
            return
        run.tally.sent(self.application, request)
        for longest in _backoffs():
            outcome = self._post(request)
            run.tally.answered(self.application, request, outcome)
            match outcome:
                case Asked():
                    over.wait(outcome.seconds + chance.random())
                case Broken():
                    over.wait(chance.uniform(0, longest))
                case _:
                    return
            if over.is_set():
                return

    def _post(self, request: Request) -> Outcome:
        headers = request.headers | {"Authorization": f"Bearer {run.tokens[self.application]}"}
        with self.client.post(
            request.path, data=request.body, headers=headers, name=request.name, catch_response=True
        ) as response:
            outcome = read(request, response.status_code, response.headers, response.content)
            match outcome:
                case Settled(surprises=()):
                    response.success()
                case Settled():
                    response.failure(outcome.surprises[0])
                case Asked():
                    response.request_meta["name"] += f", {ASKED}"
                    response.success()
                case _:
                    response.failure(outcome.reason)
        return outcome


def _backoffs() -> Iterator[float]:
    longest = FIRST_BACKOFF_SECONDS
    while True:
        yield longest
        longest = min(2 * longest, LONGEST_BACKOFF_SECONDS)


class Visitor(Sender):
    """Someone before a page, which sends each event as it happens."""

    weight = 8

    def on_start(self) -> None:
        """Open the first page."""
        self.session = self.new_session()

    def wait_time(self) -> float:
        """Look at it."""
        return think_seconds(chance) / run.pace

    @task
    def act(self) -> None:
        """Do something; who has left makes room for someone else."""
        if self.session.left <= 0:
            self.session = self.new_session()
        self.send(single(self.session.event(datetime.now(UTC))))


class App(Sender):
    """Someone with an app, which gathers events and sends them every few seconds."""

    weight = 3

    def on_start(self) -> None:
        """Open the app."""
        self.session = self.new_session()

    def wait_time(self) -> float:
        """Use it for a while."""
        return chance.uniform(5, 15) / run.pace

    @task
    def act(self) -> None:
        """Send what has gathered."""
        if self.session.left <= 0:
            self.session = self.new_session()
        self.send(array(self.session.gathered(datetime.now(UTC))))


class Backend(Sender):
    """A server of the organisation's own, which sends for many people."""

    weight = 1

    def on_start(self) -> None:
        """Know some people."""
        self.sessions = [self.new_session() for _ in range(BACKEND_SESSIONS)]

    def wait_time(self) -> float:
        """Gather."""
        return chance.uniform(0.5, 1.5) / run.pace

    @task
    def act(self) -> None:
        """Send what they have done."""
        now = datetime.now(UTC)
        places = chance.choices(range(BACKEND_SESSIONS), k=chance.randint(*BACKEND_EVENTS))
        sent = [self.sessions[place].event(now) for place in places]
        self.sessions = [session if session.left > 0 else self.new_session() for session in self.sessions]
        self.send(chance.choice((array, lines))(sent))
