"""Servers with a certificate: of an authority that the client trusts, and of one that it does not."""

import logging
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.client.conftest import TOKEN, settings
from tests.client.scripted import WAIT_SECONDS, ScriptedServer, serving
from tests.client.tracking import track, track_many
from tests.servers import wait_until
from trustme import CA

from the_eye_client import Eye


@pytest.fixture(scope="module")
def authority() -> CA:
    """An authority that no system knows."""
    return CA()


def context_of(authority: CA, name: str) -> ssl.SSLContext:
    """Make what a server of this name shows a certificate with."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(context)
    return context


def trust_in(authority: CA) -> ssl.SSLContext:
    """Make what an application gives to the client."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture
def server(authority: CA) -> Iterator[ScriptedServer]:
    """A server whose certificate is right but for who has signed it."""
    with serving(context_of(authority, "127.0.0.1")) as running:
        yield running


def test_an_authority_of_ones_own_is_trusted_where_it_is_given(server: ScriptedServer, authority: CA) -> None:
    """Over one connection, in several batches."""
    with Eye(server.url, TOKEN, settings(ssl_context=trust_in(authority), batch_events=100)) as eye:
        ids = track_many(eye, 500)
        assert eye.flush()

    assert server.stored == dict.fromkeys(ids, 1)
    assert server.requests[0].headers["Authorization"] == f"Bearer {TOKEN}"
    assert (eye.counters.sent, eye.counters.retried, eye.counters.last_error) == (500, 0, None)


def test_the_authorities_of_the_system_are_trusted(
    server: ScriptedServer, authority: CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that OpenSSL finds, where it is told by its own variable too."""
    authority.cert_pem.write_to_path(tmp_path / "authorities.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authorities.pem"))
    with Eye(server.url, TOKEN, settings()) as eye:
        track(eye)
        assert eye.flush()
    assert eye.counters.sent == 1


def test_an_unknown_authority_gets_neither_events_nor_the_token(
    server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said what is wrong, and the events wait as in any other outage."""
    with Eye(server.url, TOKEN, settings()) as eye:
        track_many(eye, 3)
        wait_until(lambda: eye.counters.retried >= 2, WAIT_SECONDS, lambda: str(eye.counters))
        assert (eye.counters.queued, eye.counters.sent, eye.counters.dropped) == (3, 0, 0)
        assert "certificate verify failed" in str(eye.counters.last_error)

    assert server.requests == []
    assert [record.levelno for record in caplog.records if "certificate verify failed" in record.getMessage()] == [
        logging.WARNING
    ]
    assert TOKEN not in caplog.text


def test_a_certificate_of_another_host_is_refused(authority: CA) -> None:
    with (
        serving(context_of(authority, "events.example.com")) as server,
        Eye(server.url, TOKEN, settings(ssl_context=trust_in(authority))) as eye,
    ):
        track(eye)
        wait_until(lambda: eye.counters.retried >= 1, WAIT_SECONDS, lambda: str(eye.counters))
        assert "certificate is not valid for '127.0.0.1'" in str(eye.counters.last_error)
        assert server.requests == []


def test_a_kept_connection_that_the_server_has_closed_costs_no_failure(server: ScriptedServer, authority: CA) -> None:
    with Eye(server.url, TOKEN, settings(ssl_context=trust_in(authority))) as eye:
        for _ in range(3):
            track(eye)
            assert eye.flush()
            server.stop()
            server.start()
        track_many(eye, 1_000)
        assert eye.flush()
    assert (eye.counters.sent, eye.counters.retried) == (1_003, 0)


def test_a_server_that_breaks_off_the_handshake_is_one_that_is_away(server: ScriptedServer) -> None:
    """Plain HTTP where TLS is spoken: no answer, within the time a request may take."""
    with Eye(server.url.replace("https", "http"), TOKEN, settings(request_seconds=2.0)) as eye:
        track(eye)
        begun = time.monotonic()
        wait_until(lambda: eye.counters.retried >= 1, WAIT_SECONDS, lambda: str(eye.counters))
        assert time.monotonic() - begun < WAIT_SECONDS / 2
    assert server.requests == []
