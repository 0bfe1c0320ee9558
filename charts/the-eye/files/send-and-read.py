# ruff: noqa: INP001 - it is no module
"""Sends an event as an application does, and reads it back; `helm test` runs it in a pod of the release."""

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from datetime import UTC, datetime, timedelta

APPLICATION = "helm-test"
SECONDS = 60.0


def the_eye(*arguments: str) -> str:
    """Run a command of The Eye's, and give what it prints."""
    ended = subprocess.run(["the-eye", *arguments], stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603, S607
    return ended.stdout.strip()


def is_listed(applications: str) -> bool:
    """See whether there is this test's application, and not only one whose name has its own as a part."""
    return any(application["name"] == APPLICATION for application in json.loads(applications))


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


def test(api: str) -> str:
    """Give what went wrong; empty when nothing did."""
    if not is_listed(the_eye("application", "list", "--output=json")):  # as it is after an earlier test
        the_eye("application", "create", APPLICATION)
    until = datetime.now(UTC) + timedelta(minutes=10)
    token = the_eye(
        "token", "create", f"--application={APPLICATION}", "--scope=ingest", "--scope=read", f"--expires={until:%FT%TZ}"
    )
    event_id, session_id = str(uuid.uuid4()), str(uuid.uuid4())
    event = {
        "event_id": event_id,
        "session_id": session_id,
        "category": "helm test",
        "name": "send and read",
        "data": {},
        "timestamp": datetime.now(UTC).isoformat(),
    }
    deadline = time.monotonic() + SECONDS
    while (answer := ask(f"{api}/events", token, event))[0] != 202:  # noqa: PLR2004
        if time.monotonic() > deadline:
            return f"the event was not accepted: {answer}"
        time.sleep(1)  # the API knows the token after some seconds
    while event_id not in json.dumps(answer := ask(f"{api}/sessions/{session_id}/events", token)):
        if time.monotonic() > deadline:
            return f"the event was accepted, and not stored within {SECONDS:g} s: {answer}"
        time.sleep(1)
    return ""


if __name__ == "__main__":
    failure = test(sys.argv[1])
    print(failure or "an event was sent and read back")  # noqa: T201
    sys.exit(bool(failure))
