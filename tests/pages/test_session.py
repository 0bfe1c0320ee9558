"""A person follows what someone did."""

from uuid import uuid4

from playwright.sync_api import Page, expect
from tests.pages.house import House, broken_event, event


def test_a_session_is_followed_from_one_of_its_events(admin: Page, house: House) -> None:
    session = str(uuid4())
    _, broken, _ = house.send(
        event(1000, session_id=session, name="pageview"),
        broken_event(100, session_id=session),
        event(90, session_id=session),
    )
    admin.goto(f"/ui/events/{broken}")
    expect(admin.locator(".line.broken")).to_contain_text("element")
    expect(admin.locator(".line.broken")).to_contain_text("default/cta-click-element")

    admin.get_by_role("link", name=session).click()

    steps = admin.locator(".timeline li")
    expect(steps).to_have_count(4)
    expect(steps.nth(1)).to_contain_text("15.0 min without an event")
    expect(admin.locator(".timeline li.invalid")).to_have_count(1)
    steps.nth(2).get_by_role("link").first.click()
    admin.wait_for_url(f"**/ui/events/{broken}")
