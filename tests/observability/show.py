"""`python -m tests.observability.show` draws the dashboards' images in docs/ from a run in which something happens.

An application sends what rules refuse, a rule changes, the worker stands still, an event cannot be stored: each is to
be seen in the images, and what it led to.
"""

import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import click
from observability.dashboards.render import Prometheus, Window, write
from tests.observability import senders
from tests.observability.senders import Event, Sender, event
from tests.observability.stand import PAGEVIEW, Stand, standing

from the_eye.store import applications
from the_eye.tokens import Scope

DOCS = Path(__file__).parents[2] / "docs" / "observability"

RATE_INTERVAL = "10s"
BATCH = 30
PAUSE_SECONDS = 0.2

MEMORY_LIMIT = 64 * 2**20


class Shop:
    """An application that sends batches, of which a part can be made invalid."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._stopping = threading.Event()
        self.invalid = 0

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Send in a thread for as long as the block lasts."""
        thread = threading.Thread(target=self._keep_sending, name="shop", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            thread.join()

    def _keep_sending(self) -> None:
        while not self._stopping.wait(PAUSE_SECONDS):
            self._sender.send(*self._batch())

    def _batch(self) -> Iterator[Event]:
        for number in range(BATCH):
            yield event(host="elsewhere.example.com" if number < self.invalid else senders.HOST)


def happen(stand: Stand, shop: Shop) -> None:
    """Let something happen, with time before and after that shows how it is otherwise."""
    _say("all is well", 60)
    with stand.database() as database:
        database.execute("ALTER TABLE events ADD CONSTRAINT storable CHECK (name <> 'unstorable')")
    stand.kubernetes.apply("page-view-host", match=PAGEVIEW, schema={"type": "object", "properties": HOST})
    _say("a rule has changed, and the worker has not seen it", 20)
    stand.deliver()
    _say("now it has", 20)
    shop.invalid = BATCH // 2
    _say("the shop sends what the rule refuses", 45)
    shop.invalid = 0
    _say("it does not any more", 15)
    with stand.worker_frozen():
        _say("no worker takes anything", 60)
    _say("it works off what has gathered", 60)
    stand.sender.send(event("unstorable"))
    _say("an event could not be stored", 40)


HOST = {"host": {"type": "string", "const": senders.HOST}}


def _say(what: str, seconds: float) -> None:
    click.echo(f"{what}: {seconds:g} s")
    time.sleep(seconds)


def _shop(stand: Stand) -> Sender:
    with stand.database() as database:
        applications.create_application(database, "shop")
        token = applications.create_token(database, "shop", [Scope.INGEST])
    return Sender(stand.machine.api, token.text)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=DOCS)
def main(folder: Path) -> None:
    """Draw the images into FOLDER."""
    with tempfile.TemporaryDirectory(prefix="eye-") as temporary, standing(Path(temporary)) as stand:
        with stand.redis() as redis:
            redis.config_set("maxmemory", MEMORY_LIMIT)
        shop = Shop(_shop(stand))
        with shop.sending():
            since = time.time()
            happen(stand, shop)
            with closing(Prometheus(stand.prometheus.url)) as prometheus:
                write(folder, prometheus, Window(since, time.time(), RATE_INTERVAL))


if __name__ == "__main__":
    main()
