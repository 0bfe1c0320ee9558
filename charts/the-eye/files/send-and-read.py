# ruff: noqa: INP001 - it is no module
"""Sends an event as an application does, and reads it back; `helm test` runs it in a pod of the release.

Its arguments are the API's address, and how many seconds the way of the event may take.
"""

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from datetime import UTC, datetime, timedelta

APPLICATION = "helm-test"


class FailureError(Exception):
    """Raised when the test fails; its text says at what."""


def the_eye(*arguments: str) -> str:
    """Run a command of The Eye's, and give what it prints."""
    ended = subprocess.run(["the-eye", *arguments], capture_output=True, text=True, check=False)  # noqa: S603, S607
    if ended.returncode:
        message = f"the-eye {arguments[0]} {arguments[1]}: {ended.stderr.strip()}"
        raise FailureError(message)
    return ended.stdout.strip()


def make_application() -> None:
    """Make this test's application, unless it is there from an earlier test."""
    applications = json.loads(the_eye("application", "list", "--output=json"))
    if not any(application["name"] == APPLICATION for application in applications):
        the_eye("application", "create", APPLICATION)


def revoke_tokens() -> None:
    """Leave no live token: there may be two, and a test that was killed leaves its own for ten minutes."""
    for token in json.loads(the_eye("token", "list", f"--application={APPLICATION}", "--output=json")):
        if token["state"] == "live":
            the_eye("token", "revoke", str(token["id"]))


def ask(url: str, token: str, body: object = None) -> tuple[int, object]:
    """Send a request; gives status 0 when there is no answer."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers=headers)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")
    except OSError as error:
        return 0, str(error)


def send_and_read(api: str, token: str, seconds: float) -> None:
    """Send an event, and wait until it is there to be read."""
    event_id, session_id = str(uuid.uuid4()), str(uuid.uuid4())
    event = {
        "event_id": event_id,
        "session_id": session_id,
        "category": "helm test",
        "name": "send and read",
        "data": {},
        "timestamp": datetime.now(UTC).isoformat(),
    }
    deadline = time.monotonic() + seconds
    while (answer := ask(f"{api}/events", token, event))[0] != 202:  # noqa: PLR2004
        if time.monotonic() > deadline:
            message = f"the event was not accepted within {seconds:g} s: {answer}"
            raise FailureError(message)
        time.sleep(1)  # the API knows the token after some seconds
    while event_id not in json.dumps(answer := ask(f"{api}/sessions/{session_id}/events", token)):
        if time.monotonic() > deadline:
            message = f"the event was accepted, and not stored within {seconds:g} s: {answer}"
            raise FailureError(message)
        time.sleep(1)


def test(api: str, seconds: float) -> None:
    """Send an event with a token that works for as long as the test takes."""
    make_application()
    revoke_tokens()
    until = datetime.now(UTC) + timedelta(minutes=10)
    token = the_eye(
        "token", "create", f"--application={APPLICATION}", "--scope=ingest", "--scope=read", f"--expires={until:%FT%TZ}"
    )
    try:
        send_and_read(api, token, seconds)
    finally:
        revoke_tokens()


if __name__ == "__main__":
    try:
        test(sys.argv[1], float(sys.argv[2]))
    except FailureError as failure:
        sys.exit(f"the test failed: {failure}")
    print("an event was sent and read back")  # noqa: T201
