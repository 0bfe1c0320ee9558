"""What every page has in common: nothing sticks out, everything can be read and has a name, in light and dark.

With `--write-screenshots` what each looks like goes to docs/pages.
"""

import re
from typing import Any
from uuid import uuid4

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect
from tests.pages.conftest import NARROW, SCREENSHOTS, WIDE, OpenPage
from tests.pages.house import LONG, House, broken_event, event

Look = tuple[bool, tuple[int, int]]
"""Whether it is dark, and the size in pixels."""

EVENT, SESSION = uuid4(), uuid4()
RULE = "default/cta-click-element"
PAGES = {
    "events": "/ui/events?last=1h",
    "event": f"/ui/events/{EVENT}",
    "session": f"/ui/sessions/{SESSION}",
    "live": "/ui/live",
    "problems": "/ui/problems?last=1h",
    "rules": "/ui/rules",
    "rule": f"/ui/rules/{RULE}?last=1h",
    "trial": "/ui/rules/try",
    "applications": "/ui/applications",
}


@pytest.fixture(scope="module", autouse=True)
def sights(house: House) -> None:
    """Events of all kinds, with values that are hard to show."""
    house.send(
        *(event(2 * number, name="pageview") for number in range(20)),
        *(broken_event(5 * number) for number in range(6)),
        event(3, category=LONG[:255], name=LONG[-255:]),
        event(4000, session_id=str(SESSION), name="pageview"),
        event(30, session_id=str(SESSION), name="pageview"),
        broken_event(9, session_id=str(SESSION), event_id=str(EVENT), data=_hard_to_show()),
    )
    house.put_to_death(event())


def _hard_to_show() -> dict[str, Any]:
    deep: dict[str, Any] = {}
    for level in range(30):
        deep = {f"level {level}": deep}
    return {"host": "www.consumeraffairs.com", "element": "banner", "n": 1.5, "ok": True, "long": LONG, "deep": deep}


@pytest.mark.parametrize("name", ["sign-in", *PAGES])
@pytest.mark.parametrize("look", [(False, WIDE), (True, WIDE), (False, NARROW), (True, NARROW)], ids=str)
def test_a_page_fits_and_can_be_used_by_all(
    open_page: OpenPage, house: House, request: pytest.FixtureRequest, name: str, look: Look
) -> None:
    """No sideways scrolling; contrast, names and roles as axe wants them."""
    dark, size = look
    page = open_page(dark=dark, size=size)
    if name == "sign-in":
        page.goto("/ui/sign-in")
    else:
        house.sign_in(page)
        page.goto(PAGES[name])
    if name == "live":  # which is never idle
        expect(page.get_by_role("status")).to_have_text("Watching")
        house.send(*(event(name="pageview") for _ in range(3)), broken_event())
        expect(page.locator("#live-rows tr")).to_have_count(4)
    else:
        page.wait_for_load_state("networkidle")
    if name in {"rules", "rule"}:  # which another process may have to read first
        expect(page.get_by_text(RULE).first).to_be_visible()
    if name == "trial":
        page.get_by_role("button", name=re.compile("stored")).click()
        expect(page.get_by_text("Would become invalid")).to_be_visible()
        page.evaluate("scrollTo(0, 0)")
    _look(page)

    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    if request.config.getoption("--write-screenshots") and dark == (size == NARROW):
        page.screenshot(path=SCREENSHOTS / f"{name}-{'narrow' if size == NARROW else 'wide'}.png")


def _look(page: Page) -> None:
    # Our policy lets no script in but our own; axe comes in by the debugger, and asks for styles of no one.
    results = Axe().run(page, options={"resultTypes": ["violations"]})
    assert results.violations_count == 0, results.generate_report()
