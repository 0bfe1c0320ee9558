"""`the-eye up` with servers of the user's own."""

import sys
from pathlib import Path

import pytest
from tests.machine import running
from tests.servers import Postgres, Valkey


@pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
def test_a_server_that_is_named_takes_the_place_of_the_embedded_one(
    tmp_path: Path, postgres: Postgres, valkey: Valkey
) -> None:
    url = postgres.create_database("own")

    with running(tmp_path, changes={"THE_EYE_DATABASE_URL": url, "THE_EYE_REDIS_URL": valkey.url()}) as machine:
        assert set(machine.children()) == {"the_eye_cli api", "the_eye_cli worker"}
        assert not (machine.data / "postgres").exists()
        assert not (machine.data / "valkey").exists()
