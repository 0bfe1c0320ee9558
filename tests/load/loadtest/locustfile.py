"""What Locust runs: the users, and what is done before and after a test.

``make loadtest`` runs it against what ``make up`` has started; ``docs/load.md`` says how to run it elsewhere.
"""

import signal
import sys
from pathlib import Path
from typing import Any

import gevent
from locust import events
from locust.runners import WorkerRunner
from locust.stats import StatsEntry
from tests.load.loadtest.asking import RefusedError
from tests.load.loadtest.tally import Times
from tests.load.loadtest.users import ASKED, App, Backend, Visitor, over, run

__all__ = ["App", "Backend", "Visitor"]

TALLY = "the_eye_tally"
"""Where the counts of a process are in what Locust sends to its master."""


class Ending:
    """What is done once after each test, by the process that people look at."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.greenlet: gevent.Greenlet | None = None

    def account(self, environment: Any) -> None:
        """Wait until what was accepted is stored, and compare."""
        seconds = run.end()
        if seconds is not None:
            say(["", "waiting until what was accepted is stored ..."])
            self.told = run.account(_times(environment, seconds), environment.parsed_options.settle_seconds)

    def account_beside(self, environment: Any) -> None:
        """Do so while the page is served, and tell it in the terminal."""

        def account() -> None:
            self.account(environment)
            self.tell()

        self.greenlet = gevent.spawn(account)

    def tell(self) -> None:
        """Print the summary, once."""
        told, self.told = self.told, []
        if told:
            say(["", *told, ""])


def _times(environment: Any, seconds: float) -> Times:
    """Add up the times of all requests but those that were only asked to wait."""
    whole = StatsEntry(environment.stats, "answered", "POST")
    for (name, _), entry in environment.stats.entries.items():
        if not name.endswith(ASKED):
            whole.extend(entry)
    p50, p95, p99 = (whole.get_response_time_percentile(share) for share in (0.5, 0.95, 0.99))
    return Times(seconds, p50, p95, p99)


def say(lines: list[str]) -> None:
    """Print to the person who has started it."""
    print("\n".join(lines), flush=True)  # noqa: T201 - it is the output


ending = Ending()


@events.init_command_line_parser.add_listener
def add_options(parser: Any) -> None:
    """Add what Locust does not know of."""
    parser.add_argument(
        "--tokens",
        metavar="FILE",
        default="tokens",
        env_var="LOADTEST_TOKENS",
        include_in_web_ui=False,
        help="A token of each application, one a line, with the scopes ingest and read.",
    )
    parser.add_argument(
        "--pace", type=float, default=1.0, env_var="LOADTEST_PACE", help="How many times as fast as people users are."
    )
    parser.add_argument(
        "--settle-seconds",
        type=float,
        default=60.0,
        env_var="LOADTEST_SETTLE_SECONDS",
        help="How long it may take at the end until what was accepted is stored.",
    )


@events.init.add_listener
def take_ctrl_c(**_: object) -> None:
    """Have Ctrl-C reach Locust, which waits for it: raised in whatever runs at that moment, it may come to nothing."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # with --processes Locust has its own
        gevent.signal_handler(signal.SIGINT, gevent.get_hub().parent.throw, KeyboardInterrupt)


@events.init.add_listener
def look_first(environment: Any, **_: object) -> None:
    """See that the tokens are there and let in, before anyone waits for users to fail."""
    try:
        run.aim(environment.host or "", Path(environment.parsed_options.tokens))
        if not isinstance(environment.runner, WorkerRunner):
            run.see_that_it_is_let_in()
    except RefusedError as error:
        print(f"Error: {error}", file=sys.stderr)  # noqa: T201 - as above
        sys.exit(2)


@events.test_start.add_listener
def begin(environment: Any, **_: object) -> None:
    """Begin to count."""
    environment.host = run.url  # the page lets it be typed over, which has no effect
    run.begin(environment.parsed_options.pace)
    over.clear()


@events.test_stopping.add_listener
def stop_sending(**_: object) -> None:
    """Have users begin no request that would be cut off."""
    over.set()


@events.report_to_master.add_listener
def report(data: dict[str, Any], **_: object) -> None:
    """Send what was counted to the master, which counts nothing itself."""
    data[TALLY] = run.tally.take()


@events.worker_report.add_listener
def collect(data: dict[str, Any], **_: object) -> None:
    """Add what a worker has counted."""
    run.tally.add(data.get(TALLY, {}))


@events.test_stop.add_listener
def stop(environment: Any, **_: object) -> None:
    """Account for a test that was started from the page; without one it is done at the end."""
    if not (environment.parsed_options.headless or isinstance(environment.runner, WorkerRunner)):
        ending.account_beside(environment)


@events.quitting.add_listener
def account(environment: Any, **_: object) -> None:
    """Account for what was sent; the exit code is 1 when something failed or is missing."""
    if isinstance(environment.runner, WorkerRunner):
        return
    environment.runner.quit()  # after Ctrl-C users are still at it; workers tell their last counts to a master
    if ending.greenlet is not None:
        ending.greenlet.join()
    ending.account(environment)
    if run.failed:
        environment.process_exit_code = 1


@events.quit.add_listener
def tell(**_: object) -> None:
    """Say it last, below Locust's own tables."""
    ending.tell()
