"""``make loadtest``: starts Locust with what it needs to know of what is loaded."""

import os
import sys
from pathlib import Path

import click
from tests.load.loadtest import here
from tests.load.loadtest.here import NotHereError

FOLDER = Path(__file__).parent
LOCUST = Path(sys.prefix) / "locust" / "bin" / "python"
"""Locust has a place of its own: imported, it patches the standard library, and it brings a plugin for pytest."""

USERS = "50"
SPAWN_RATE = "10"
HEADLESS_SECONDS = "60s"
PAGE_SECONDS = "10m"
STOP_SECONDS = "30"
"""How long a request that is on its way may take at the end: killed, it would leave open what became of its events."""


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--host", default="", help="The API's address. [default: what `make up` has started here]")
@click.option(
    "--tokens",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="With --host: a file with a token of each application, one a line.",
)
@click.option("--applications", type=click.IntRange(1, 100), default=8, show_default=True, help="Without --host.")
@click.option(
    "--data", type=click.Path(path_type=Path), default=Path(".the-eye"), show_default=True, help="Of the-eye up."
)
@click.option("--day", is_flag=True, help="From a quiet night to a peak and back, over the run time.")
@click.argument("locust", nargs=-1, type=click.UNPROCESSED)
def main(host: str, tokens: Path | None, applications: int, data: Path, day: bool, locust: tuple[str, ...]) -> None:  # noqa: FBT001, PLR0913, PLR0917 - click's way
    """Load The Eye with Locust, whose options follow: --headless, --users, --run-time, --pace and so on.

    Without --host the tokens are those of applications that are made for it: loadtest-1 and so on.
    """
    if bool(host) != bool(tokens):
        message = "HOST and TOKENS go together: the tokens of one place are worth nothing at another"
        raise click.UsageError(message)
    try:
        url = host or here.address()
        file = tokens or here.tokens(data, applications)
    except NotHereError as error:
        print(f"Error: {error}", file=sys.stderr)  # noqa: T201 - for the person who has started it
        sys.exit(2)
    os.execv(LOCUST, [str(LOCUST), *command(url, file, day=day, headless="--headless" in locust), *locust])  # noqa: S606 - no shell is wanted


def command(url: str, tokens: Path, *, day: bool, headless: bool) -> list[str]:
    """Make Locust's arguments; what a person adds behind them counts in their place."""
    files = [FOLDER / "locustfile.py", *([FOLDER / "day.py"] if day else [])]
    return [
        "-m",
        "locust",
        f"--locustfile={','.join(map(str, files))}",
        f"--host={url}",
        f"--tokens={tokens}",
        f"--users={USERS}",
        f"--spawn-rate={SPAWN_RATE}",
        f"--run-time={HEADLESS_SECONDS if headless else PAGE_SECONDS}",
        f"--stop-timeout={STOP_SECONDS}",
        "--web-host=127.0.0.1",
        "--only-summary",
    ]


if __name__ == "__main__":
    main()
