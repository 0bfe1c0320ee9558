"""A person watches events come in, mends what died, and takes a token back."""

import re
from uuid import uuid4

from playwright.sync_api import Page, expect
from tests.machine import until
from tests.pages.house import House, broken_event, event

SECONDS = 60.0


def test_events_are_watched_as_they_come(admin: Page, house: House) -> None:
    """With a filter; while it is paused they are counted and shown later."""
    category = f"live {uuid4()}"
    admin.goto(f"/ui/live?category={category}")
    expect(admin.get_by_role("status")).to_have_text("Watching")
    rows = admin.locator("#live-rows tr")

    house.send(event(), event(category=category, name="first"))
    expect(rows).to_have_count(1)
    expect(rows.first).to_contain_text("first")

    admin.get_by_role("button", name="Pause").click()
    house.send(event(category=category, name="second"), event(category=category, name="third"))
    expect(admin.locator("#live-held")).to_have_text("2 more since")
    expect(rows).to_have_count(1)
    admin.get_by_role("button", name="Go on").click()
    expect(rows).to_have_count(3)
    rows.filter(has_text="second").get_by_role("link").first.click()
    admin.wait_for_url("**/ui/events/*")


def test_a_problem_leads_to_its_events(admin: Page, house: House) -> None:
    house.send(broken_event())
    admin.goto("/ui/problems?last=1h")

    row = admin.get_by_role("row").filter(has_text="default/cta-click-element").first
    expect(row).to_contain_text("$.data.element")
    row.get_by_role("link").first.click()

    admin.wait_for_url(re.compile("rule=default%2Fcta-click-element"))
    expect(admin.locator("tbody tr").first).to_be_visible()


def test_a_dead_event_is_replayed(admin: Page, house: House) -> None:
    dead = house.put_to_death(event(category="mended"))
    admin.goto("/ui/problems")

    admin.get_by_role("button", name=re.compile(r"^Replay \d+$")).click()

    expect(admin.get_by_text("None: every accepted event was stored.")).to_be_visible()
    until(lambda: house.client.get(f"/events/{dead}").status_code == 200, SECONDS)
    admin.goto("/ui/applications")
    expect(admin.get_by_role("region", name="Audit log")).to_contain_text("dead events replayed")


def test_a_token_is_made_used_and_revoked(admin: Page, house: House) -> None:
    """It is shown once, and stops working within seconds."""
    admin.goto("/ui/applications")
    admin.get_by_text("New application").click()
    admin.get_by_label("Name of the application").fill("kiosk")
    admin.get_by_role("button", name="Create application").click()
    admin.get_by_text("New token for kiosk").click()
    admin.get_by_role("group", name="Scopes").get_by_label("ingest").last.check()
    admin.get_by_role("button", name="Create token").last.click()
    token = admin.locator("#token").inner_text()
    until(lambda: house.sends(token), SECONDS)

    admin.goto("/ui/applications")
    expect(admin.get_by_text(token)).to_have_count(0)
    tokens = admin.get_by_role("region", name="Tokens of kiosk")
    admin.once("dialog", lambda dialog: dialog.dismiss())
    tokens.get_by_role("button", name="Revoke").click()
    expect(tokens).to_contain_text("live")
    admin.once("dialog", lambda dialog: dialog.accept())
    tokens.get_by_role("button", name="Revoke").click()

    expect(tokens).to_contain_text("revoked")
    until(lambda: not house.sends(token), SECONDS)
