"""Keys that nobody knows; how values are read is tested with the commands that have them."""

import json
import os
import subprocess
import sys

import pytest
from structlog.testing import capture_logs

from the_eye import settings
from the_eye.settings import PREFIX, ApiSettings, Group, LogSettings, SettingsError


@pytest.fixture(autouse=True)
def _nothing_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "_warned", set())


def warnings(environ: dict[str, str], *groups: type[Group]) -> list[tuple[str, str | None]]:
    """Load groups and give the keys that were warned of, each with what may have been meant."""
    with capture_logs() as logs:
        for group in groups:
            group.load(environ)
    assert {(line["event"], line["log_level"]) for line in logs} <= {("unknown_setting", "warning")}
    return [(line["key"], line["nearest"]) for line in logs]


def test_a_key_that_no_group_knows_is_warned_of_once_with_what_was_meant() -> None:
    environ = {"THE_EYE_API_LISTN": "127.0.0.1:1", "THE_EYE_REDISURL": "", "THE_EYE_COLOUR": "blue"}

    assert warnings(environ, ApiSettings, ApiSettings) == [
        ("THE_EYE_API_LISTN", "THE_EYE_API_LISTEN"),
        ("THE_EYE_COLOUR", None),
        ("THE_EYE_REDISURL", "THE_EYE_REDIS_URL"),
    ]


def test_the_keys_of_all_groups_are_known_to_each() -> None:
    keys = [key for group in Group.__subclasses__() for key in group.by_key()]

    assert len(keys) > 30
    assert warnings(dict.fromkeys(keys, "") | {"PATH": "/bin"}, ApiSettings) == []


def test_the_keys_of_the_client_are_known() -> None:
    assert warnings({"THE_EYE_URL": "http://x", "THE_EYE_TOKEN": "x"}, ApiSettings) == []


def test_what_kubernetes_injects_for_a_service_is_no_misspelling() -> None:
    """But only beside the address that comes with it."""
    injected = ["SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT", "PORT_80_TCP", "PORT_80_TCP_ADDR"]
    environ = dict.fromkeys([f"THE_EYE_{name}{key}" for name in ("", "API_") for key in injected], "x")

    assert warnings(environ, ApiSettings) == []
    assert warnings({"THE_EYE_API_PORT": "1"}, ApiSettings) == [("THE_EYE_API_PORT", None)]


def test_nothing_is_said_before_logging_is_set_up() -> None:
    assert warnings({"THE_EYE_API_LISTN": ""}, LogSettings) == []


@pytest.mark.parametrize(
    "url", ["javascript:alert('{trace_id}')", "https://x/trace/", "https://x/{trace}", "x/{trace_id}"]
)
def test_an_address_of_traces_has_a_place_for_the_id(url: str) -> None:
    with pytest.raises(SettingsError, match="THE_EYE_TRACE_URL"):
        ApiSettings.load({"THE_EYE_TRACE_URL": url})


def run(command: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    """Run a command that ends at a setting which is missing."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(PREFIX)}
    return subprocess.run(  # noqa: S603 - this interpreter
        [sys.executable, "-m", "the_eye_cli", command],
        env=inherited | environ,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("command", ["api", "worker"])
def test_a_service_logs_it_as_it_logs_all_else(command: str) -> None:
    ran = run(command, THE_EYE_REDISURL="redis://somewhere")

    warning, error = ran.stderr.splitlines()
    assert (ran.returncode, error) == (2, "Error: THE_EYE_REDIS_URL is not set")
    line = json.loads(warning)
    assert (line["level"], line["event"]) == ("warning", "unknown_setting")
    assert (line["key"], line["nearest"]) == ("THE_EYE_REDISURL", "THE_EYE_REDIS_URL")
    assert "somewhere" not in ran.stderr


def test_a_command_says_it_on_standard_error() -> None:
    ran = run("maintain", THE_EYE_RETENTION_DAY="3")

    warning, error = ran.stderr.splitlines()
    assert (ran.stdout, error) == ("", "Error: THE_EYE_DATABASE_URL is not set")
    assert "unknown_setting" in warning
    assert "key=THE_EYE_RETENTION_DAY nearest=THE_EYE_RETENTION_DAYS" in warning
