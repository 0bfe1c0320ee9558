"""Nobody sees a page without signing in, and no other site acts for someone who has."""

from collections.abc import Callable

import httpx
import pytest
from tests.integration.pages.conftest import PASSWORD, Browser
from tests.integration.test_edge import Edge

from the_eye.store.connect import Connection
from the_eye.store.sign_ins import USER_ATTEMPTS
from the_eye.store.users import disable_user

PAGES = ["/ui/events", "/ui/events/histogram", "/ui/events/export/csv"]


@pytest.mark.parametrize("path", PAGES)
def test_a_page_asks_to_sign_in_and_comes_back(browser: Browser, path: str) -> None:
    asked = browser.get(f"{path}?text=a%26b")

    assert asked.status_code == 303
    form = browser.get(asked.headers["location"])
    assert f'value="{path}?text=a%26b"' in form.text
    entered = browser.sign_in("vera", next=f"{path}?text=a%26b")
    assert entered.headers["location"] == f"{path}?text=a%26b"
    assert browser.get(path).status_code == 200


def test_a_part_of_a_page_says_where_to_sign_in(browser: Browser) -> None:
    """In the header that htmx follows, instead of the form in the middle of a page."""
    answer = browser.get("/ui/events/histogram", headers={"HX-Request": "true"})

    assert answer.status_code == 401
    assert answer.headers["hx-redirect"] == "/ui/sign-in"


def test_the_root_leads_people_to_the_events(browser: Browser) -> None:
    assert browser.get("/").headers["location"] == "/ui/events"


@pytest.mark.parametrize(
    "next_", ["https://example.com", "//example.com", "/events", "/ui/../events\\", "/ui@example.com", "/uix", ""]
)
def test_no_one_is_sent_elsewhere(browser: Browser, next_: str) -> None:
    assert browser.sign_in("vera", next=next_).headers["location"] == "/ui/events"


def test_the_cookie_is_for_this_site_alone(browser: Browser) -> None:
    plain = browser.sign_in("vera").headers["set-cookie"]
    assert "HttpOnly" in plain
    assert "SameSite=lax" in plain
    assert "Path=/ui" in plain
    assert "Secure" not in plain

    form = browser.form("/ui/sign-in")
    data = {**form, "name": "vera", "password": PASSWORD}
    secure = browser.post("/ui/sign-in", data=data, headers={"X-Forwarded-Proto": "https"})
    assert "Secure" in secure.headers["set-cookie"]


def test_wrong_names_and_passwords_get_the_same_answer(open_browser: Callable[[], Browser]) -> None:
    answers = []
    for name, password in (("vera", "wrong wrong wrong"), ("nobody", "wrong wrong wrong")):
        answer = open_browser().sign_in(name, password)
        assert answer.status_code == 403
        answers.append(answer.text.replace(name, "NAME"))

    without_token = [text[: text.index("csrf_token")] for text in answers]
    assert without_token[0] == without_token[1]


def test_what_was_typed_comes_back_as_text(browser: Browser) -> None:
    answer = browser.sign_in('"><script>alert(1)</script>', "wrong wrong wrong")

    assert "<script>alert" not in answer.text
    assert "&lt;script&gt;alert(1)" in answer.text


def test_guessing_is_stopped_by_name_and_by_the_address_that_the_proxy_tells(browser: Browser) -> None:
    def attempt(password: str, address: str) -> httpx.Response:
        form = {**browser.form("/ui/sign-in"), "name": "vera", "password": password}
        # What the sender itself wrote stands before what the trusted proxy added.
        return browser.post("/ui/sign-in", data=form, headers={"X-Forwarded-For": f"203.0.113.7, {address}"})

    for number in range(USER_ATTEMPTS):
        assert attempt("wrong wrong wrong", f"192.0.2.{number}").status_code == 403

    assert attempt(PASSWORD, "192.0.2.99").status_code == 403


def test_signing_out_ends_it_on_the_server(viewer: Browser, open_browser: Callable[[], Browser]) -> None:
    kept = dict(viewer.cookies)
    assert viewer.post("/ui/sign-out", data=viewer.form("/ui/events")).status_code == 303

    stolen = open_browser()
    stolen.cookies.update(kept)
    assert stolen.get("/ui/events").status_code == 303
    assert "the_eye_sign_in" not in viewer.cookies


def test_whoever_is_disabled_is_out_with_the_next_page(viewer: Browser, people: Connection) -> None:
    assert viewer.get("/ui/events").status_code == 200
    disable_user(people, "vera")
    assert viewer.get("/ui/events").status_code == 303


@pytest.mark.parametrize("path", ["/ui/sign-in", "/ui/sign-out"])
def test_a_form_of_another_site_changes_nothing(viewer: Browser, path: str) -> None:
    """It sends the cookies at best, but neither knows the token nor can hide where it comes from."""
    token = viewer.form("/ui/events")

    assert viewer.post(path).status_code == 403
    assert viewer.post(path, data={"csrf_token": "0" * 64}).status_code == 403
    assert viewer.post(path, data={"csrf_token": "é"}).status_code == 403
    assert viewer.post(path, data=token, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert viewer.post(path, data=token, headers={"Sec-Fetch-Site": "same-site"}).status_code == 403
    assert viewer.get("/ui/events").status_code == 200


def test_the_token_of_one_browser_is_of_no_use_in_another(viewer: Browser, admin: Browser) -> None:
    assert admin.post("/ui/sign-out", data=viewer.form("/ui/events")).status_code == 403


@pytest.mark.parametrize(
    ("path", "status"), [("/ui/events", 303), ("/ui/sign-in", 200), ("/ui/nothing", 404), ("/ui/assets/pages.css", 200)]
)
def test_every_answer_has_the_security_headers(browser: Browser, path: str, status: int) -> None:
    answer = browser.get(path)

    assert answer.status_code == status
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "style-src 'self';" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "same-origin"


def test_pages_are_kept_by_no_one_and_files_for_long(viewer: Browser) -> None:
    assert viewer.get("/ui/events").headers["cache-control"] == "no-store"
    assert "immutable" in viewer.get("/ui/assets/htmx/htmx.min.js").headers["cache-control"]


def test_a_sign_in_lets_no_one_use_the_api(viewer: Browser, served: Edge) -> None:
    """Cookies are for pages, tokens for programs."""
    assert viewer.get("/events").status_code == 401
    with httpx.Client(base_url=served.url, headers={"Authorization": f"Bearer {served.created.text}"}) as program:
        assert program.get("/ui/events").status_code == 303
