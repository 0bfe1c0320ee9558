"""Connection strings: deadlines are added, secrets never shown, and dbmate understands the same as libpq."""

import pytest
from psycopg.conninfo import conninfo_to_dict

from the_eye.settings import SettingsError, StoreSettings
from the_eye.store.connect import parameters, redact
from the_eye_cli.migrate import dbmate_url


def test_every_wait_has_a_deadline() -> None:
    settings = StoreSettings(database_url="postgresql://a@h/d", database_connect_seconds=1.5)

    made = conninfo_to_dict(parameters(settings, "the-eye api", 2.5))

    assert made["connect_timeout"] == "2"
    assert made["tcp_user_timeout"] == "5500"
    assert made["application_name"] == "the-eye api"
    assert str(made["options"]).startswith("-c statement_timeout=2500 -c idle_in_transaction_session_timeout=2500 ")


def test_what_the_url_says_wins() -> None:
    url = "postgresql://h/d?application_name=mine&connect_timeout=9&options=-c%20statement_timeout%3D1"

    made = conninfo_to_dict(parameters(StoreSettings(database_url=url), "the-eye api", 2.5))

    assert (made["application_name"], made["connect_timeout"]) == ("mine", "9")
    assert str(made["options"]).endswith(" -c statement_timeout=1")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://the_eye@/the_eye?host=/run/pg", "postgresql://the_eye@/the_eye?host=/run/pg"),
        ("postgres://u:secret@db:5433/d", "postgresql://u@/d?host=db&port=5433"),
        ("postgresql://db/d?user=u&password=secret&sslpassword=secret", "postgresql://u@/d?host=db"),
        ("postgresql://u:secret@h1,h2:1/d", "postgresql://u@/d?host=h1,h2&port=,1"),
        ("postgresql://u:secret@[::1/d", "(unreadable URL)"),
        ("postgresql:///d", "postgresql:///d"),
    ],
)
def test_a_url_is_shown_without_secrets(url: str, shown: str) -> None:
    assert redact(url) == shown


def test_a_url_that_cannot_be_read_is_not_repeated() -> None:
    settings = StoreSettings(database_url="postgresql://u:secret@[::1/d")

    with pytest.raises(SettingsError) as raised:
        parameters(settings, "the-eye api", 1)
    assert "THE_EYE_DATABASE_URL" in str(raised.value)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "translated"),
    [
        ("postgresql://u@/d?host=/run/pg", "postgres://u@/d?sslmode=prefer&host=%2Frun%2Fpg"),
        ("postgresql://u@/d?host=/run/pg&port=5", "postgres://u@/d?sslmode=prefer&host=%2Frun%2Fpg&port=5"),
        ("postgresql://u@%2Frun%2Fpg/d", "postgres://u@/d?sslmode=prefer&host=%2Frun%2Fpg"),
        ("postgres://u:p%40ss%2F@db:5433/d", "postgres://u:p%40ss%2F@/d?sslmode=prefer&host=db&port=5433"),
        ("postgres://u@[::1]/d?sslmode=disable", "postgres://u@/d?sslmode=disable&host=%3A%3A1"),
        ("postgres://u@db?target_session_attrs=any&application_name=x", "postgres://u@/u?sslmode=prefer&host=db"),
        ("postgresql://db/a%20b?user=u&sslmode=verify-full&sslrootcert=/ca.pem",
         "postgres://u@/a%20b?sslmode=verify-full&host=db&sslrootcert=%2Fca.pem"),
    ],
)  # fmt: skip
def test_dbmate_gets_the_same_in_its_own_spelling(url: str, translated: str) -> None:
    assert dbmate_url(url) == translated
