"""A person looks at the rules, and tries one."""

import json
import re
from typing import Any

from playwright.sync_api import Page, expect
from tests.pages.house import House, broken_event, event

RULE = "default/cta-click-element"
TRIAL_MILLISECONDS = 60_000

LOOPING = "event.data.n.all(x, event.data.n.all(y, !event.data.text.matches('(a|b)*(a|b)*c')))"


def sent(**changes: Any) -> str:
    """Write an event as it is sent."""
    return json.dumps({name: value for name, value in event(**changes).items() if name != "event_id"}, indent=2)


def test_a_rule_is_found_and_tried_on_a_pasted_event(admin: Page, house: House) -> None:
    """It is tried in place, by keyboard as well; an event passes, and another is told where it does not fit."""
    house.send(broken_event())
    admin.goto("/ui/rules")
    admin.get_by_label("Text").fill("CTA-click")
    admin.get_by_label("Text").press("Enter")
    rows = admin.get_by_role("region", name="Rules").locator("tbody tr")
    expect(rows).to_have_count(1)
    expect(rows.first).to_contain_text("Enforce")
    expect(rows.first).to_contain_text(re.compile(r"\d events?"))
    admin.wait_for_url(re.compile("text=CTA-click"))

    rows.first.get_by_role("link", name=RULE).click()
    expect(admin.get_by_role("region", name="Schema")).to_contain_text("chat bubble")
    expect(admin.get_by_role("region", name="Broken rules")).to_contain_text("$.data.element")

    outcome = admin.locator("#outcome")
    admin.get_by_label("Event, as it is sent").fill(sent())
    admin.get_by_role("button", name="Try on this event").press("Enter")
    expect(outcome).to_contain_text("The event fits the rule", timeout=TRIAL_MILLISECONDS)

    admin.get_by_label("Event, as it is sent").fill(sent(data={"element": "banner"}))
    admin.get_by_role("button", name="Try on this event").click()
    expect(outcome.locator(".line.broken")).to_contain_text("element", timeout=TRIAL_MILLISECONDS)
    admin.wait_for_url(re.compile(f"/ui/rules/{RULE}"))


def test_an_edit_is_tried_on_stored_events(admin: Page, house: House) -> None:
    """What would become of them leads to each; a fault names its field."""
    (stored,) = house.send(event())
    admin.goto(f"/ui/rules/{RULE}")
    source = admin.get_by_label("Rule, or its spec alone")
    edited = source.input_value().replace("chat bubble", "chat balloon")
    outcome = admin.locator("#outcome")

    source.fill(edited.replace("enum", "enumm"))
    admin.get_by_role("button", name=re.compile("stored")).click()
    expect(outcome).to_contain_text("Would become invalid", timeout=TRIAL_MILLISECONDS)
    source.fill(edited.replace("action: Enforce", "action: Refuse"))
    admin.get_by_role("button", name=re.compile("stored")).click()
    expect(outcome.get_by_role("alert")).to_contain_text("spec.action", timeout=TRIAL_MILLISECONDS)

    source.fill(edited)
    admin.get_by_role("button", name=re.compile("stored")).click()
    row = outcome.locator("tbody tr").filter(has=admin.locator(f"a[href$='{stored}']"))
    expect(row).to_contain_text("$.data.element", timeout=TRIAL_MILLISECONDS)
    expect(row.locator(".badge")).to_have_text(["valid", "invalid"])
    row.get_by_role("link").click()
    admin.wait_for_url(f"**/ui/events/{stored}")


def test_a_rule_that_takes_too_much_is_stopped_and_the_pages_go_on(admin: Page, house: House) -> None:
    admin.goto("/ui/rules/try")
    admin.get_by_label("Rule, or its spec alone").fill(f'match: {{}}\nvalidations: [{{expression: "{LOOPING}"}}]')
    admin.get_by_label("Event, as it is sent").fill(sent(data={"n": list(range(90)), "text": "a" * 500_000}))

    admin.get_by_role("button", name="Try on this event").click()
    expect(admin.get_by_text("Trying …")).to_be_visible()
    house.send(event())

    expect(admin.locator("#outcome")).to_contain_text("was stopped", timeout=TRIAL_MILLISECONDS)
    admin.goto("/ui/events")
    expect(admin.locator("tbody tr").first).to_be_visible()
