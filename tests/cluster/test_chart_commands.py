"""What the chart tells people to run, what `helm test` runs, and Tilt's buttons, with The Eye running on this machine.

`kubectl` is a stand-in here: what it is to run in a pod runs on this machine, and a rule that it is to apply goes into
the rules' directory. What a real API server says of these commands is told in tests/cluster.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import httpx
import msgspec
import pytest
from tests.chart.rendering import NAMESPACE, render
from tests.machine import RULES, Machine, free_addresses, running, until

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(shutil.which("curl") is None and not os.environ.get("CI"), reason="people are told to use curl"),
]

SECONDS = 60.0
BUTTON = RULES.parent / "tilt" / "send-events.sh"

KUBECTL = """\
#!/bin/sh
[ "$1" = --namespace ] && shift 2
case "$1" in
    exec) [ "$2 $3" = "deployment/the-eye-api --" ] || exit 64; shift 3; exec "$@" ;;
    apply) exec cat >"$RULES/applied.yaml" ;;
    wait | port-forward | get) ;;
    *) exit 64 ;;
esac
"""


class Here(msgspec.Struct, frozen=True):
    """The Eye on this machine, and a shell in which it is taken for one in a cluster."""

    machine: Machine
    environ: dict[str, str]

    def run(self, *command: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(  # noqa: S603 - our own commands
            command, env={**self.environ, **environ}, capture_output=True, text=True, check=False, timeout=SECONDS
        )

    def paste(self, commands: str, **environ: str) -> str:
        """Paste commands into a shell, where each of them has to succeed; gives what is printed."""
        ended = self.run("bash", "-euc", commands.replace("http://localhost:8000", self.machine.api), **environ)
        assert ended.returncode == 0, f"{commands}\n{ended.stdout}{ended.stderr}"
        return ended.stdout

    def tokens(self, application: str) -> list[str]:
        """Say in what states an application's tokens are."""
        listed = self.run("the-eye", "token", "list", f"--application={application}", "--output=json")
        return [token["state"] for token in msgspec.json.decode(listed.stdout)]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    """The Eye with one of the sample rules."""
    folder = tmp_path_factory.mktemp("here")
    rules, programs = folder / "rules", folder / "bin"
    rules.mkdir()
    shutil.copy(RULES / "form-first-name.yaml", rules)
    programs.mkdir()
    (programs / "kubectl").write_text(KUBECTL)
    (programs / "kubectl").chmod(0o755)
    with running(folder, rules=rules, changes={"THE_EYE_TOKEN_REFRESH_SECONDS": "0.2"}) as machine:
        exported = re.findall(r"(?m)^export (\w+)='?(.*?)'?$", (machine.data / "env").read_text())
        path = f"{programs}:{Path(sys.executable).parent}:/usr/bin:/bin"
        yield Here(machine, {"PATH": path, "RULES": str(rules), **dict(exported)})


@pytest.fixture(scope="module")
def blocks() -> dict[str, str]:
    """The commands of the notes by what is said before them."""
    # `the-eye up` has made the application of this name.
    paragraphs = render().notes.replace(" demo", " noted").split("\n\n")
    return {said: block for said, block in pairwise(paragraphs) if re.match(r" *(kubectl|curl|helm) ", block)}


def test_the_notes_lead_to_a_first_event_and_a_first_rule(here: Here, blocks: dict[str, str]) -> None:
    wait, lead, make, send, read, apply, test = blocks.values()
    here.paste(wait)
    here.paste(lead)
    token = here.paste(f'{make}\necho "token=$TOKEN"').rpartition("token=")[2].strip()

    def sent() -> bool:
        return '"event_id"' in here.paste(send, TOKEN=token)

    def rules_broken() -> list[str] | None:
        events = msgspec.json.decode(here.paste(read, TOKEN=token))["events"]
        return [violation["rule"] for violation in events[0]["violations"]] if events else None

    until(sent, SECONDS)  # within three seconds, as the notes say
    until(lambda: rules_broken() == [], SECONDS)
    here.paste(apply)
    until(lambda: sent() and rules_broken() == [f"{NAMESPACE}/cta-click-element"], SECONDS)
    assert test.split() == ["helm", "test", "the-eye", "--namespace", NAMESPACE, "--logs"]


def script() -> str:
    """Give the text that the pod of `helm test` runs."""
    (container,) = render().pod("test").containers()
    assert container["command"] == ["python", "-c"]
    text, api, seconds = container["args"]
    assert (api, float(seconds)) == ("http://the-eye-api:80", 60)
    return str(text)


def helm_test(here: Here, *, api: str = "", seconds: float = SECONDS, **environ: str) -> tuple[int, str]:
    """Run what the pod of `helm test` runs; gives its exit status and what it says."""
    ended = here.run("python", "-c", script(), api or here.machine.api, str(seconds), **environ)
    return ended.returncode, ended.stdout + ended.stderr


def test_helm_test_succeeds_as_often_as_one_likes_and_leaves_no_live_token(here: Here) -> None:
    """Also after ones that were killed, and where another application's name has its own as a part."""
    for name in ("helm-test", "old-helm-test"):
        assert here.run("the-eye", "application", "create", name).returncode == 0
    for _ in range(2):
        create = ("the-eye", "token", "create", "--application=helm-test", "--scope=ingest", "--scope=read")
        assert here.run(*create).returncode == 0

    for _ in range(2):
        assert helm_test(here) == (0, "an event was sent and read back\n")

    assert here.tokens("helm-test") == ["revoked"] * 4
    assert here.tokens("old-helm-test") == []


def test_helm_test_makes_its_application(here: Here) -> None:
    """Under a name that is free: that of the test before is taken."""
    text = script().replace('"helm-test"', '"old-helm"')

    ended = here.run("python", "-c", text, here.machine.api, str(SECONDS))

    assert ended.returncode == 0, ended.stderr
    assert here.tokens("old-helm") == ["revoked"]


def test_helm_test_says_that_no_api_answers(here: Here) -> None:
    (nowhere,) = free_addresses(1)

    status, said = helm_test(here, api=f"http://{nowhere}", seconds=1)

    assert status == 1
    assert said.startswith("the test failed: the event was not accepted within 1 s: (0, ")
    assert "refused" in said
    assert "live" not in here.tokens("helm-test")


def test_helm_test_says_that_no_worker_stores_the_event(here: Here) -> None:
    worker = next(pid for name, pid in here.machine.children().items() if name.endswith(" worker"))
    os.kill(worker, signal.SIGSTOP)
    try:
        status, said = helm_test(here, seconds=5)
    finally:
        os.kill(worker, signal.SIGCONT)

    assert status == 1
    assert said.startswith("the test failed: the event was accepted, and not stored within 5 s: ")


def test_helm_test_says_that_there_is_no_database(here: Here) -> None:
    status, said = helm_test(here, THE_EYE_DATABASE_URL="postgresql://nobody@127.0.0.1:9/none")

    assert status == 1
    assert said.startswith("the test failed: the-eye application list: ")
    assert "refused" in said


def test_helm_test_says_that_its_application_is_disabled(here: Here) -> None:
    here.run("the-eye", "application", "create", "helm-test")  # unless it is there
    here.run("the-eye", "application", "disable", "helm-test")
    try:
        status, said = helm_test(here)
    finally:
        here.run("the-eye", "application", "enable", "helm-test")

    assert status == 1
    assert "application helm-test is disabled" in said


def test_tilts_button_sends_the_sample_events_as_often_as_one_likes(here: Here) -> None:
    for _ in range(3):
        ended = here.run(str(BUTTON), here.machine.api)
        assert '"accepted":4' in ended.stdout, ended.stdout + ended.stderr

    assert set(here.tokens("tilt")) == {"revoked"}
    rows = 3 * len((RULES.parent / "sample-events.ndjson").read_text().splitlines())
    create = ("the-eye", "token", "create", "--application=tilt", "--scope=read")
    headers = {"Authorization": f"Bearer {here.run(*create).stdout.strip()}"}

    def stored() -> int:
        answer = httpx.get(f"{here.machine.api}/events?limit=100", headers=headers)
        return len(answer.json()["events"]) if answer.status_code == httpx.codes.OK else 0

    until(lambda: stored() == rows, SECONDS)
