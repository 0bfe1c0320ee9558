"""The rules of a directory are shown, counted and tried; what someone types costs the API neither time nor memory."""

import html
import re
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from tests.integration.pages.conftest import Browser
from tests.integration.store.rows import event, insert, violating
from tests.integration.test_edge import Edge
from tests.servers import wait_until
from tests.unit.rules.making import cel, manifest

from the_eye.rules.trial import PROGRAM, TrialRequest
from the_eye.store.connect import Connection
from the_eye_api.pages.children import ChildError, Children
from the_eye_api.pages.rules import MEMORY_BYTES, OUTPUT_BYTES, PROCESSOR_SECONDS, STORE_SECONDS, TRIAL_SECONDS

NOW = datetime.now(UTC)
SECONDS = 30.0
EVIL = "<script>alert(1)</script>"

EVENT: dict[str, Any] = {
    "session_id": "e2085be5-9137-4e4e-80b5-f1ffddc25423",
    "category": "page interaction",
    "name": "cta click",
    "data": {"ok": True},
    "timestamp": "2026-01-01T09:15:27Z",
}
RULE = manifest("a", match={"category": "page interaction"}, schema={"required": ["ok"]}, **cel("event.data.ok"))

LOOPING = cel("event.data.n.all(x, event.data.n.all(y, !event.data.text.matches('(a|b)*(a|b)*c')))")
DEVOURING = cel("event.data.text.replace('a', event.data.text).size() > 0")
LARGE = {**EVENT, "data": {"n": list(range(90)), "text": "a" * 900_000}}


@pytest.fixture
def rules(rules_folder: Path) -> Iterator[Path]:
    """The directory, empty before and after."""
    yield rules_folder
    for file in rules_folder.iterdir():
        file.unlink()


def put(folder: Path, *manifests: dict[str, Any]) -> None:
    """Write rules, a file for each."""
    for one in manifests:
        (folder / f"{one['metadata']['name']}.json").write_bytes(msgspec.json.encode(one))


def opened(browser: Browser, path: str, shown: str) -> str:
    """Open a page when it shows a text: rules are read by another process."""
    page = ""

    def shows() -> bool:
        nonlocal page
        page = browser.get(path).text
        return shown in page

    wait_until(shows, SECONDS, lambda: page)
    return page


def tried(browser: Browser, rule: dict[str, Any] | str, on: dict[str, Any] | None = None) -> str:
    """Try a rule on an event, or on stored ones; give what the page says of it, without tags."""
    form = {
        **browser.form("/ui/rules/try"),
        "rule": rule if isinstance(rule, str) else msgspec.json.encode(rule).decode(),
        "event": msgspec.json.encode(on).decode() if on else "",
        "known_as": "default/a",
        "application": "",
        "on": "event" if on else "stored",
    }
    answer = browser.post("/ui/rules/try", data=form, timeout=2 * TRIAL_SECONDS)
    assert answer.status_code == 200, answer.text
    outcome = answer.text.partition('id="outcome"')[2]
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", outcome)).split())


def test_rules_are_listed_with_counts_and_what_is_refused(viewer: Browser, people: Connection, rules: Path) -> None:
    put(rules, RULE, manifest("b", action="Audit", match={"applications": ["shop"]}, **cel("true")))
    (rules / "wrong.yaml").write_text("kind: Nothing")
    insert(people, event(timestamp=NOW, **violating("default/a", f"gone/{EVIL}")))

    page = opened(viewer, "/ui/rules", "wrong.yaml")

    assert "2 in 2 files" in page
    assert "/ui/rules/default/a?last=24h" in page
    assert "rule=default%2Fa&amp;last=24h" in page
    assert "another ruleset" in page
    assert "rule=gone%2F" in page
    assert EVIL not in page
    assert (
        "default/a"
        not in viewer.get("/ui/rules?action=Audit").text.partition('aria-label="Rules"')[2].partition("</table>")[0]
    )


def test_a_change_of_the_directory_is_seen(viewer: Browser, rules: Path) -> None:
    put(rules, RULE)
    opened(viewer, "/ui/rules", "default/a")

    put(rules, manifest("b", **cel("true")))
    (rules / "a.json").unlink()

    page = opened(viewer, "/ui/rules", "default/b")
    assert "default/a" not in page


def test_an_empty_directory_says_what_to_do(viewer: Browser, rules: Path) -> None:
    assert str(rules) in opened(viewer, "/ui/rules", "No rules yet")


def test_a_list_has_pages_and_is_searched(viewer: Browser, rules: Path) -> None:
    put(
        rules,
        *(manifest(f"rule-{number:03}", match={"name": f"name {number}"}, **cel("true")) for number in range(120)),
    )
    first = opened(viewer, "/ui/rules", "of 120")

    assert "1 to 50 of 120" in first
    assert "101 to 120 of 120" in viewer.get("/ui/rules?page=3").text
    assert "101 to 120 of 120" in viewer.get("/ui/rules?page=999999").text
    found = viewer.get("/ui/rules?text=NAME+117").text
    assert "1 to 1 of 1" in found
    assert "default/rule-117" in found
    assert "None fits this filter" in viewer.get("/ui/rules?text=nothing").text


def test_a_rule_is_shown_with_its_source_and_its_problems(viewer: Browser, people: Connection, rules: Path) -> None:
    put(rules, manifest("a", match={"category": EVIL}, schema={"const": EVIL}, **cel(f"event.name != '{EVIL}'")))
    (broken,) = insert(people, event(timestamp=NOW, **violating("default/a")))
    opened(viewer, "/ui/rules", "default/a")

    page = viewer.get("/ui/rules/default/a").text

    assert f"/ui/events/{broken}" in page
    assert page.count(html.escape(EVIL, quote=False)) > 3
    assert EVIL not in page
    assert viewer.get("/ui/rules/default/none").status_code == 404


def test_trying_is_for_admins(viewer: Browser, admin: Browser) -> None:
    assert "This takes the role admin" in viewer.get("/ui/rules/try").text
    form = {**admin.form("/ui/rules/try"), "rule": "{}", "event": "{}", "on": "event"}

    assert viewer.post("/ui/rules/try", data={**form, **viewer.form("/ui/rules/try")}).status_code == 403
    assert admin.post("/ui/rules/try", data={**form, "csrf_token": "x"}).status_code == 403


def test_an_event_passes_and_another_does_not(admin: Browser) -> None:
    assert "The event fits the rule" in tried(admin, RULE, EVENT)

    outcome = tried(admin, RULE, {**EVENT, "data": {"ok": False}})
    assert "invalid 1 violation" in outcome
    assert "expression.false" in outcome

    assert "The rule is not for this event" in tried(admin, RULE, {**EVENT, "category": "other"})


def test_faults_name_their_field(admin: Browser) -> None:
    assert "spec.action : expected one of Enforce, Audit" in tried(
        admin, manifest("a", action="Reject", **cel("true")), EVENT
    )
    assert "$.session_id : session_id is a UUID" in tried(admin, RULE, {**EVENT, "session_id": "x"})


def test_a_rule_is_tried_on_stored_events(admin: Browser, people: Connection) -> None:
    good, bad = insert(
        people,
        event(timestamp=NOW, data='{"ok": true}', **violating("default/a")),
        event(timestamp=NOW, data='{"ok": false}'),
    )

    outcome = tried(admin, RULE)

    assert "Judged 2 Pass 1 Violate it 1 Would become invalid 1 Would become valid 1" in outcome
    for event_id in (good, bad):
        assert admin.get(f"/ui/events/{event_id}").status_code == 200


def test_a_rule_that_takes_all_memory_is_stopped(admin: Browser, served: Edge) -> None:
    outcome = tried(admin, manifest("a", **DEVOURING), LARGE)

    assert re.search("took too much memory and was stopped|takes more memory than there is", outcome)
    assert httpx.get(f"{served.url}/readyz").status_code == 200


def test_a_rule_that_does_not_end_is_stopped_and_the_api_goes_on_answering(admin: Browser, served: Edge) -> None:
    """Whoever comes while one is tried waits for it, and others do not."""
    outcomes: list[str] = []
    trial = threading.Thread(target=lambda: outcomes.append(tried(admin, manifest("a", **LOOPING), LARGE)))

    began = time.monotonic()
    trial.start()
    answers = 0
    while trial.is_alive():
        assert httpx.get(f"{served.url}/healthz", timeout=SECONDS).status_code == 200
        answers += 1
        trial.join(timeout=0.05)  # asking without a pause would leave it, of the lowest priority, no processor

    assert answers > 10
    assert re.search("took too much of the processor's time and was stopped|did not end within", outcomes[0])
    assert time.monotonic() - began >= PROCESSOR_SECONDS / 2
    assert "The event fits the rule" in tried(admin, RULE, EVENT)


async def test_a_rule_that_does_not_end_is_ended_by_the_processor_time_it_took() -> None:
    """Not by the page's other limit, which is first where the machine is busy: it has much more time here."""
    request = TrialRequest(
        rule=msgspec.json.encode(manifest("a", **LOOPING)).decode(),
        known_as="default/a",
        event=msgspec.json.encode(LARGE).decode(),
        application="",
        store_seconds=STORE_SECONDS,
        processor_seconds=PROCESSOR_SECONDS,
        memory_bytes=MEMORY_BYTES,
    )
    with pytest.raises(ChildError, match="took too much of the processor's time and was stopped"):
        await Children().run(
            PROGRAM, msgspec.json.encode(request), seconds=6 * TRIAL_SECONDS, output_bytes=OUTPUT_BYTES
        )
