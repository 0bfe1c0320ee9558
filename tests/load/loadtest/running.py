"""One run of a process: where it sends to, and what becomes of what it sends."""

import random
import time
from datetime import UTC, datetime
from pathlib import Path

from tests.load.loadtest.asking import Api, RefusedError, wait_until_stored
from tests.load.loadtest.tally import Agreement, Tally, Times, summary
from tests.load.loadtest.traffic import MARK_BITS


class Run:
    """What the users of this process share; one test after the other."""

    def __init__(self) -> None:
        self.url = ""
        self.tokens: list[str] = []
        self.pace = 1.0
        self.tally = Tally()
        self.mark = 0
        self.failed = False
        self._since = datetime.now(UTC)
        self._begun: float | None = None

    def aim(self, url: str, tokens: Path) -> None:
        """Take the API's address, and a token of each application, one a line. Raises RefusedError."""
        if not url.startswith(("http://", "https://")):
            message = "no API is named, such as --host https://events.example.com"
            raise RefusedError(message)
        try:
            self.tokens = tokens.read_text().split()
        except OSError as error:
            message = f"the tokens cannot be read: {error}"
            raise RefusedError(message) from error
        if not self.tokens:
            message = f"there is no token in {tokens}: write one of each application into it, one a line"
            raise RefusedError(message)
        self.url = url.rstrip("/")

    def see_that_it_is_let_in(self) -> None:
        """Try each token. Raises RefusedError."""
        for number, token in enumerate(self.tokens):
            try:
                Api(self.url, token).see_that_it_takes_events()
            except RefusedError as error:
                message = f"{error} (token {number + 1} of {len(self.tokens)})"
                raise RefusedError(message) from error

    def begin(self, pace: float) -> None:
        """Forget the test before."""
        self.pace = pace
        self.tally = Tally()
        self.mark = random.SystemRandom().getrandbits(MARK_BITS)
        self.tally.mark(self.mark)
        self._since = datetime.now(UTC)
        self._begun = time.monotonic()

    def end(self) -> float | None:
        """Give the seconds that the test took; None when none was begun, or it has been ended."""
        begun, self._begun = self._begun, None
        return None if begun is None else time.monotonic() - begun

    def account(self, times: Times, settle_seconds: float) -> list[str]:
        """Compare what is stored with what was accepted, waiting for it; give the summary."""
        owed = {number: self.tally.total("accepted", number) for number in range(len(self.tokens))}
        apis = {number: Api(self.url, self.tokens[number]) for number, events in owed.items() if events}
        stored = wait_until_stored(apis, owed, self.tally.marks, self._since, settle_seconds)
        agreement = Agreement.of(self.tally, stored)
        self.failed = bool(
            agreement.missing
            or agreement.unexplained
            or not agreement.complete
            or self.tally.total("failed")
            or not self.tally.total("accepted")
        )
        return list(summary(self.tally, times, agreement))
