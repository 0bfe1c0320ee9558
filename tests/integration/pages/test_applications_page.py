"""Admins make, rotate and revoke tokens, each of which acts leaves a record; viewers see them."""

import re
from html import unescape

import httpx
import pytest
from tests.integration.pages.conftest import Browser
from tests.integration.test_edge import GOOD, Edge
from tests.servers import wait_until

from the_eye.store.applications import create_application, create_token, list_tokens
from the_eye.store.audit_log import latest_acts
from the_eye.store.connect import Connection
from the_eye.tokens import Scope

DEADLINE = 20.0


def act(browser: Browser, path: str = "", **fields: str | list[str]) -> httpx.Response:
    """Send one of the page's forms."""
    return browser.post(f"/ui/applications{path}", data={**browser.form("/ui/applications"), **fields})


def made_token(answer: httpx.Response) -> str:
    """Take the token out of the page."""
    assert answer.status_code == 200, answer.text
    found = re.search(r'id="token">(eye_[^<]+)<', answer.text)
    assert found is not None
    return unescape(found[1])


def acts(connection: Connection) -> list[tuple[str, str, str]]:
    return [(one.actor, one.act, one.subject) for one in reversed(latest_acts(connection, 10))]


def works(served: Edge, token: str) -> bool:
    with served.client(token) as client:
        return client.post("/events", json=GOOD).status_code == 202


def test_a_token_is_made_shown_once_used_and_revoked(admin: Browser, served: Edge, people: Connection) -> None:
    assert act(admin, name="shop").status_code == 303
    token = made_token(act(admin, "/tokens", application="shop", scope=["ingest", "read"], days="30"))

    assert token not in admin.get("/ui/applications").text
    wait_until(lambda: works(served, token), DEADLINE, lambda: "the token does not work")
    (row,) = list_tokens(people)
    assert row.scopes == ("ingest", "read")
    assert row.expires_at is not None
    assert act(admin, f"/tokens/{row.id}/revoke").status_code == 303
    wait_until(lambda: not works(served, token), DEADLINE, lambda: "the token works still")
    assert acts(people) == [
        ("alice", "application created", "shop"),
        ("alice", "token created", f"token {row.id} of shop for ingest and read"),
        ("alice", "token revoked", f"token {row.id}"),
    ]


def test_a_rotated_token_works_beside_the_new_one_for_a_day(admin: Browser, served: Edge, people: Connection) -> None:
    create_application(people, "shop")
    old = create_token(people, "shop", [Scope.INGEST])

    new = made_token(act(admin, f"/tokens/{old.id}/rotate"))

    wait_until(lambda: works(served, new) and works(served, old.text), DEADLINE, lambda: "not both work")
    first, second = list_tokens(people)
    assert first.expires_at is not None
    assert 23.9 < (first.expires_at - second.created_at).total_seconds() / 3600 <= 24
    assert second.scopes == first.scopes
    assert act(admin, "/tokens/999/rotate").status_code == 422


@pytest.mark.parametrize(
    ("path", "fields", "said"),
    [
        ("", {"name": "Not A Name"}, "63 of a-z"),
        ("", {"name": "shop"}, "exists already"),
        ("/tokens", {"application": "none", "scope": "ingest"}, "no application named"),
        ("/tokens", {"application": "shop"}, "has a scope"),
        ("/tokens", {"application": "shop", "scope": "ingest", "days": "-1"}, "has a scope"),
        ("/tokens/999/revoke", {}, "no token with the id 999"),
    ],
)
def test_what_cannot_be_done_is_said_and_not_recorded(
    admin: Browser, people: Connection, path: str, fields: dict[str, str], said: str
) -> None:
    create_application(people, "shop")

    answer = act(admin, path, **fields)

    assert answer.status_code == 422
    assert said in unescape(answer.text)
    assert acts(people) == []


@pytest.mark.parametrize("path", ["", "/tokens", "/tokens/1/rotate", "/tokens/1/revoke"])
def test_a_viewer_changes_nothing(viewer: Browser, people: Connection, path: str) -> None:
    create_application(people, "shop")
    create_token(people, "shop", [Scope.INGEST])

    assert act_as_viewer(viewer, path).status_code == 403
    assert "Revoke" not in viewer.get("/ui/applications").text
    assert [token.state for token in list_tokens(people)] == ["live"]


def act_as_viewer(viewer: Browser, path: str) -> httpx.Response:
    return act(viewer, path, name="blog", application="shop", scope="ingest")
