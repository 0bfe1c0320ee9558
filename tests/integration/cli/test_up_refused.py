"""What `the-eye up` says when it cannot start; what it does when it works and then goes wrong: tests/faults."""

import os
import socket
import sys
from collections.abc import Mapping
from contextlib import chdir
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tests.machine import NOTHING, RULES, environment, free_addresses

from the_eye_cli import preflight
from the_eye_cli import up as up_module
from the_eye_cli.main import main
from the_eye_cli.preflight import data_folder

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up soon on what will not be had."""
    monkeypatch.setattr(preflight, "ADDRESS_SECONDS", 0.1)
    monkeypatch.setattr(up_module, "OWN_SERVER_SECONDS", 0.1)


def tried(folder: Path, *options: str, rules: Path = RULES, changes: Mapping[str, str] = NOTHING) -> Result:
    """Run `the-eye up` in a folder where it cannot start."""
    environ = {**dict.fromkeys(os.environ), **environment(changes)}
    with chdir(folder):
        return CliRunner().invoke(main, ["up", "--rules", str(rules), *options], env=environ)


def refused(folder: Path, *options: str, rules: Path = RULES, changes: Mapping[str, str] = NOTHING) -> Result:
    """Run it so; what it says is one line, and nothing was started."""
    ran = tried(folder, *options, rules=rules, changes=changes)
    assert ran.stdout == ""
    assert ran.stderr.count("\n") == 1, ran.stderr
    assert not list(folder.glob("**/*.log"))
    return ran


@pytest.mark.parametrize("key", ["THE_EYE_API_LISTEN", "THE_EYE_API_METRICS_LISTEN", "THE_EYE_WORKER_METRICS_LISTEN"])
def test_a_port_in_use_is_named_with_its_setting(tmp_path: Path, key: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"

        ran = refused(tmp_path, changes={key: address})

    assert (ran.exit_code, ran.stderr) == (1, f"Error: {address} ({key}) is in use\n")


def test_where_prometheus_is_missing_it_says_how_to_install_it(tmp_path: Path) -> None:
    ran = refused(tmp_path, "--observe", changes={"PATH": str(tmp_path)})

    expected = (
        "Error: --observe needs the program prometheus, which is not installed; on Debian: apt install prometheus\n"
    )
    assert (ran.exit_code, ran.stderr) == (1, expected)


def test_two_services_at_one_address_are_refused(tmp_path: Path) -> None:
    (address,) = free_addresses(1)

    ran = refused(tmp_path, changes={"THE_EYE_API_LISTEN": address, "THE_EYE_API_METRICS_LISTEN": address})

    assert (ran.exit_code, ran.stderr) == (1, f"Error: {address} (THE_EYE_API_METRICS_LISTEN) is in use\n")


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("127.0.0.1:0", "Error: THE_EYE_API_LISTEN=127.0.0.1:0: `the-eye up` needs a port that is known beforehand\n"),
        ("192.0.2.1:80", "Error: 192.0.2.1:80 (THE_EYE_API_LISTEN) cannot be used: Cannot assign requested address\n"),
    ],
)
@on_linux
def test_an_address_that_cannot_be_had_is_named_with_its_setting(tmp_path: Path, address: str, text: str) -> None:
    ran = refused(tmp_path, changes={"THE_EYE_API_LISTEN": address})

    assert (ran.exit_code, ran.stderr) == (1, text)


@pytest.mark.parametrize(("data", "reason"), [("file", "File exists"), ("file/data", "Not a directory")])
def test_a_data_folder_that_cannot_be_written_is_named(tmp_path: Path, data: str, reason: str) -> None:
    (tmp_path / "file").touch()

    ran = refused(tmp_path, "--data", data)

    assert ran.exit_code == 1
    assert ran.stderr == (
        f"Error: the data folder {tmp_path}/{data} cannot be written ({reason}): choose another with --data\n"
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_data_folder_of_someone_else_s_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)

    ran = refused(tmp_path)

    assert ran.exit_code == 1
    assert "cannot be written (Permission denied)" in ran.stderr


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("THE_EYE_API_LISTEN", "8000"),
        ("THE_EYE_WORKER_THREADS", "many"),
        ("THE_EYE_RETENTION_DAYS", "0"),
        ("THE_EYE_DATABASE_URL", "mysql://localhost/db"),
    ],
)
def test_a_broken_setting_is_named_whichever_process_it_is_for(tmp_path: Path, key: str, value: str) -> None:
    ran = refused(tmp_path, changes={key: value})

    assert ran.exit_code == 2
    assert ran.stderr.startswith(f"Error: {key}=")


def test_a_rules_directory_that_is_missing_is_named(tmp_path: Path) -> None:
    ran = refused(tmp_path, rules=tmp_path / "rules")

    assert ran.exit_code == 1
    assert ran.stderr == (
        f"Error: the rules directory {tmp_path}/rules cannot be read (No such file or directory): "
        "name another with --rules\n"
    )


def test_another_up_on_the_same_data_is_named(tmp_path: Path) -> None:
    with data_folder(tmp_path / ".the-eye"):
        ran = refused(tmp_path)

    assert ran.exit_code == 1
    assert f"another `the-eye up` (process {os.getpid()}) uses {tmp_path}/.the-eye" in ran.stderr


@pytest.mark.parametrize("key", ["THE_EYE_DATABASE_URL", "THE_EYE_REDIS_URL"])
def test_a_server_of_the_user_s_own_that_does_not_answer_is_named_without_its_password(
    tmp_path: Path, key: str
) -> None:
    (address,) = free_addresses(1)
    scheme = "postgresql" if key == "THE_EYE_DATABASE_URL" else "redis"

    ran = tried(tmp_path, changes={key: f"{scheme}://user:secret@{address}/0"})

    assert ran.exit_code == 1
    assert f"Error: the server of {key} does not answer: " in ran.stderr
    assert not {"secret", "Traceback"} & set(ran.stderr.replace(":", " ").replace("@", " ").split())
