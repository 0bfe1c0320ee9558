"""What a build's pip is told of this machine's."""

import configparser
import ssl
from pathlib import Path

import pytest
from tests.images import package_index
from tests.images.package_index import CANARY, CERTIFICATES_IN_BUILD, read_options, secrets


def test_the_environment_wins_over_a_section_and_that_over_all() -> None:
    lines = [
        ":env:.retries='1'",
        "download.retries='2'",
        "download.timeout='2'",
        "global.timeout='3'",
        "list.proxy='x'",
    ]
    assert read_options(lines) == {"retries": "1", "timeout": "2"}


def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *lines: str) -> dict[str, str]:
    """What a build's pip reads where this machine's has said these lines."""
    monkeypatch.setattr(package_index, "_asked_pip", lambda: lines)
    files = secrets(tmp_path)
    parser = configparser.RawConfigParser()
    parser.read(files["pip.conf"])
    assert all(file.read_text().startswith(CANARY) for file in files.values())
    return dict(parser["global"])


def test_the_index_is_told_and_folders_of_this_machine_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: ssl.DefaultVerifyPaths("", "", "", "", "", ""))
    lines = ("global.index-url='https://u:p@index.example/%7Ea'", "global.extra-index-url='\\na\\nb'")
    told = given(tmp_path, monkeypatch, *lines, "global.find-links='/wheels'")
    assert told == {"index-url": "https://u:p@index.example/%7Ea", "extra-index-url": "\na\nb"}
    assert package_index.hosts() == {"index.example"}


def test_the_certificates_come_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cert.pem").write_text("a certificate")
    told = given(tmp_path, monkeypatch, f":env:.cert='{tmp_path}/cert.pem'")
    assert told == {"cert": CERTIFICATES_IN_BUILD}
    assert (tmp_path / "ca-certificates").read_text().endswith("a certificate")
