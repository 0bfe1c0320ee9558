"""A person signs in, finds events, and shares what they found."""

import re
from uuid import uuid4

from playwright.sync_api import Page, expect
from tests.pages.conftest import OpenPage
from tests.pages.house import House, broken_event, event


def test_signing_in_takes_the_right_password_and_no_mouse(page: Page, house: House) -> None:
    page.goto("/ui/events?valid=false")
    expect(page.get_by_label("Name")).to_be_focused()
    page.keyboard.type(house.user)
    page.keyboard.press("Tab")
    page.keyboard.type("not the password")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("do not fit")

    page.get_by_label("Password").fill(house.password)
    page.keyboard.press("Enter")

    page.wait_for_url("**/ui/events?valid=false")
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/ui/sign-in")
    page.go_back()
    expect(page.get_by_label("Password")).to_be_visible()


def test_events_are_found_filtered_and_shared_by_the_url(admin: Page, open_page: OpenPage, house: House) -> None:
    """Filters change the list in place and the URL with it; whoever opens the URL sees the same."""
    category = f"checkout {uuid4()}"
    house.send(event(60, category=category, name="paid"), event(30, category=category, name="shipped"))
    broken = broken_event(10)
    house.send(broken)
    admin.goto("/ui/events")

    admin.get_by_label("Text").fill(category.upper())
    admin.get_by_role("button", name="Find").click()

    rows = admin.locator("tbody tr")
    expect(rows).to_have_count(2)
    expect(rows.first).to_contain_text("shipped")
    expect(admin.locator("figcaption")).to_contain_text("2 valid")
    admin.get_by_text("More filters").click()
    admin.get_by_label("Name").fill("paid")
    admin.get_by_label("Name").press("Enter")
    expect(rows).to_have_count(1)
    admin.wait_for_url(re.compile("name=paid"))

    other = open_page()
    house.sign_in(other)
    other.goto(admin.url)
    expect(other.locator("tbody tr")).to_have_count(1)
    expect(other.get_by_label("Text")).to_have_value(category.upper())

    admin.go_back()
    expect(rows).to_have_count(2)


def test_a_choice_acts_at_once_and_its_faults_are_shown(admin: Page, house: House) -> None:
    house.send(event(), broken_event())
    admin.goto("/ui/events")

    admin.get_by_label("Verdict").select_option("invalid")
    admin.wait_for_url(re.compile("valid=false"))
    expect(admin.locator("tbody .badge.valid")).to_have_count(0)
    expect(admin.locator("tbody .badge.invalid").first).to_be_visible()
    admin.locator("tbody").get_by_text("default/cta-click-element").first.click()
    admin.wait_for_url(re.compile("rule=default"))

    admin.get_by_label("Session").fill("no uuid")
    admin.get_by_label("Session").press("Enter")
    expect(admin.get_by_role("alert")).to_contain_text("a UUID")


def test_the_theme_is_the_systems_until_it_is_switched(open_page: OpenPage, house: House) -> None:
    page = open_page(dark=True)
    house.sign_in(page)
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)

    page.get_by_role("button", name="Light or dark").click()

    assert page.evaluate(ground) != dark
    page.reload()
    assert page.evaluate(ground) != dark
    page.get_by_role("button", name="Light or dark").click()
    assert page.evaluate(ground) == dark


def test_the_command_is_copied(admin: Page, house: House) -> None:
    house.send(event())
    admin.context.grant_permissions(["clipboard-read", "clipboard-write"])
    admin.goto("/ui/events?valid=true")

    admin.get_by_text("Export, or read").click()
    admin.get_by_role("button", name="Copy as curl").click()

    expect(admin.get_by_role("button", name="Copied")).to_be_visible()
    assert admin.evaluate("navigator.clipboard.readText()").startswith("curl --header")
