"""The embedded PostgreSQL and Valkey, started for real under the supervisor."""

import asyncio
import io
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from signal import SIGKILL

import psycopg
import pytest
import redis

from the_eye_cli.console import Console
from the_eye_cli.embedded import EmbeddedPostgres, EmbeddedServerError, EmbeddedValkey
from the_eye_cli.ordinary_user import as_ordinary_user
from the_eye_cli.sockets import SocketDirectoryError, make_socket_directory, remove_socket_directory
from the_eye_cli.supervisor import Child, Spec, Stage, Supervisor

PATIENCE = 60.0

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder, as `the-eye up` makes it."""
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    return folder


@asynccontextmanager
async def running(server: EmbeddedPostgres | EmbeddedValkey, logs: Path) -> AsyncIterator[Child]:
    """Start a server as `the-eye up` does, and stop it in order."""
    supervisor = Supervisor(Console(io.StringIO()), logs)
    server.check()
    if isinstance(server, EmbeddedPostgres) and server.is_new:
        await supervisor.run(spec(server, server.initdb_command()), PATIENCE)
        server.adopt()
    child = await supervisor.start(spec(server, server.command))
    try:
        await supervisor.ready(child, server.why_not_ready, PATIENCE)
        if isinstance(server, EmbeddedPostgres):
            await server.create_database()
        yield child
    finally:
        assert await supervisor.stop(asyncio.Event())


def spec(server: EmbeddedPostgres | EmbeddedValkey, command: list[str]) -> Spec:
    """Describe a command of a server."""
    return Spec(
        name=server.name,
        command=command,
        environ=os.environ,
        stage=Stage.STORE,
        stop_signal=server.stop_signal,
        stop_seconds=PATIENCE,
    )


def postgres_in(data: Path) -> EmbeddedPostgres:
    """Make the server of a data folder."""
    return EmbeddedPostgres(data, make_socket_directory(data))


def valkey_in(data: Path) -> EmbeddedValkey:
    """Make the server of a data folder."""
    return EmbeddedValkey(data, make_socket_directory(data))


def ask(server: EmbeddedPostgres, query: str) -> object:
    """Give the one value that a query finds."""
    with psycopg.connect(server.url, autocommit=True) as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


async def test_postgres_serves_its_database_on_a_socket_only_and_durably(data: Path, tmp_path: Path) -> None:
    server = postgres_in(data)

    async with running(server, tmp_path):
        found = {
            name: ask(server, f"SHOW {name}")
            for name in ("listen_addresses", "fsync", "synchronous_commit", "server_encoding", "timezone", "jit")
        }
        assert ask(server, "SELECT current_database() || ' of ' || current_user") == "the_eye of the_eye"

    assert found == {
        "listen_addresses": "",
        "fsync": "on",
        "synchronous_commit": "on",
        "server_encoding": "UTF8",
        "timezone": "UTC",
        "jit": "off",
    }


async def test_a_pgport_of_the_user_s_does_not_lead_astray(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPORT", "1")
    server = postgres_in(data)

    async with running(server, tmp_path):
        assert ask(server, "SELECT 1") == 1


async def test_owners_and_modes_of_all_folders_above_stay_as_they_were(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("own") / "home"  # short enough for a socket
    home.mkdir(mode=0o700)
    data = home / "project" / "data"
    data.mkdir(mode=0o750, parents=True)
    watched = [data, *data.parents, *programs_of(postgres_in(data)).parents]
    before = [owner_and_mode(path) for path in watched]

    async with running(postgres_in(data), tmp_path):
        during = [owner_and_mode(path) for path in watched]

    assert during == before
    assert [owner_and_mode(path) for path in watched] == before
    assert owner_and_mode(data / "postgres") == (os.geteuid(), os.getegid(), 0o700)
    assert owner_and_mode(data / "run") == (os.geteuid(), os.getegid(), 0o700)


def programs_of(server: EmbeddedPostgres) -> Path:
    """Give the program that runs the server."""
    return next(Path(word) for word in server.command if word.endswith("/bin/postgres"))


def owner_and_mode(path: Path) -> tuple[int, int, int]:
    """Give what must not change of a folder."""
    found = path.stat()
    return found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)


async def test_postgres_keeps_its_data_when_it_is_started_again(data: Path, tmp_path: Path) -> None:
    async with running(postgres_in(data), tmp_path):
        ask(postgres_in(data), "WITH made AS (SELECT 1) SELECT 1 FROM made")
        with psycopg.connect(postgres_in(data).url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
    server = postgres_in(data)

    assert not server.is_new
    async with running(server, tmp_path):
        assert ask(server, "SELECT number FROM kept") == 7


@on_linux
async def test_postgres_starts_again_after_it_was_killed_though_its_number_has_a_new_owner(
    data: Path, tmp_path: Path
) -> None:
    async with running(postgres_in(data), tmp_path) as child:
        with psycopg.connect(postgres_in(data).url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
        os.kill(child.pid, SIGKILL)
        await child.ended
    stale = data / "postgres" / "postmaster.pid"
    someone_else = await asyncio.create_subprocess_exec("sleep", "600")
    stale.write_text(stale.read_text().replace(str(child.pid), str(someone_else.pid), 1))

    try:
        async with running(postgres_in(data), tmp_path):
            assert ask(postgres_in(data), "SELECT number FROM kept") == 7
    finally:
        someone_else.kill()
        await someone_else.wait()


@on_linux
async def test_a_postgres_that_still_runs_on_the_data_is_named_and_left_alone(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("the_eye_cli.embedded.LEFTOVER_SECONDS", 0.1)

    async with running(postgres_in(data), tmp_path) as child:
        with pytest.raises(EmbeddedServerError, match=f"process {child.pid} of an earlier run still uses the data"):
            postgres_in(data).check()
        assert ask(postgres_in(data), "SELECT 1") == 1


async def test_an_initdb_that_was_interrupted_is_begun_anew(data: Path, tmp_path: Path) -> None:
    half_made = data / "postgres.new"
    half_made.mkdir()
    (half_made / "PG_VERSION").write_text("18\n")

    async with running(postgres_in(data), tmp_path):
        assert ask(postgres_in(data), "SELECT 1") == 1
    assert not half_made.exists()


def test_data_of_another_major_version_are_left_alone(data: Path) -> None:
    server = postgres_in(data)
    (data / "postgres").mkdir()
    (data / "postgres" / "PG_VERSION").write_text("15\n")

    with pytest.raises(EmbeddedServerError, match=f"is of PostgreSQL 15, but PostgreSQL {server.version} is installed"):
        server.check()


def test_a_folder_that_is_no_data_directory_is_left_alone(data: Path) -> None:
    (data / "postgres").mkdir()
    (data / "postgres" / "letter.txt").touch()

    with pytest.raises(EmbeddedServerError, match="is no data directory of PostgreSQL"):
        postgres_in(data).check()


@on_linux
def test_root_without_user_namespaces_is_told_what_to_do() -> None:
    code = "from the_eye_cli.ordinary_user import as_ordinary_user; as_ordinary_user()"
    refused = "echo 0 > /proc/sys/user/max_user_namespaces && exec"
    as_root = ["unshare", "--user", "--map-root-user", "sh", "-c", f'{refused} "$0" -c "$1"', sys.executable, code]

    ran = subprocess.run(as_root, capture_output=True, text=True, check=False)  # noqa: S603 - our own command

    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1].endswith(
        "run as an ordinary user, allow user namespaces, or set THE_EYE_DATABASE_URL to a server of your own"
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's folder")
def test_root_is_told_that_postgres_cannot_pass_another_user_s_folder(tmp_path: Path) -> None:
    home = tmp_path / "home"
    data = home / "data"
    data.mkdir(parents=True)
    home.chmod(0o700)
    os.chown(home, 12345, 12345)

    with pytest.raises(EmbeddedServerError, match=r"PostgreSQL cannot write to .*data, which another user owns"):
        postgres_in(data).check()


@pytest.mark.skipif(os.geteuid() == 0, reason="not as root")
def test_an_ordinary_user_runs_postgres_as_it_is() -> None:
    assert as_ordinary_user() == []


async def test_valkey_answers_a_write_only_when_it_is_on_disk(data: Path, tmp_path: Path) -> None:
    server = valkey_in(data)
    names = ("appendonly", "appendfsync", "no-appendfsync-on-rewrite", "save", "maxmemory-policy", "port")

    async with running(server, tmp_path):
        with redis.Redis.from_url(server.url, decode_responses=True) as client:
            found = {name: client.config_get(name)[name] for name in names}

    assert found == {
        "appendonly": "yes",
        "appendfsync": "always",
        "no-appendfsync-on-rewrite": "no",
        "save": "",
        "maxmemory-policy": "noeviction",
        "port": "0",
    }


@pytest.mark.parametrize("killed", [False, True], ids=["stopped", "killed"])
async def test_valkey_keeps_its_data_when_it_was(data: Path, tmp_path: Path, *, killed: bool) -> None:
    async with running(valkey_in(data), tmp_path) as child:
        with redis.Redis.from_url(valkey_in(data).url) as client:
            client.set("kept", "7")
        if killed:
            os.kill(child.pid, SIGKILL)
            await child.ended

    async with running(valkey_in(data), tmp_path):
        with redis.Redis.from_url(valkey_in(data).url) as client:
            assert client.get("kept") == b"7"


async def test_a_valkey_that_still_runs_on_the_data_is_named_and_left_alone(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("the_eye_cli.embedded.LEFTOVER_SECONDS", 0.1)

    async with running(valkey_in(data), tmp_path):
        with pytest.raises(EmbeddedServerError, match=r"Valkey at .* of an earlier run still uses the data"):
            valkey_in(data).check()


@pytest.mark.parametrize("name", ["long" * 30, "with space, comma & ä"], ids=["long", "unusual"])
async def test_a_data_folder_whose_path_suits_no_socket_has_its_sockets_elsewhere(tmp_path: Path, name: str) -> None:
    data = tmp_path / name
    data.mkdir()
    sockets = make_socket_directory(data)

    assert sockets.parent != data
    assert owner_and_mode(sockets) == (os.geteuid(), os.getegid(), 0o700)
    assert make_socket_directory(data) == sockets
    async with running(EmbeddedPostgres(data, sockets), tmp_path), running(EmbeddedValkey(data, sockets), tmp_path):
        assert ask(EmbeddedPostgres(data, sockets), "SELECT 1") == 1

    remove_socket_directory(sockets, data)
    assert not sockets.exists()


def test_sockets_are_not_put_where_others_could_reach_them(data: Path) -> None:
    sockets = make_socket_directory(data)
    sockets.chmod(0o755)

    with pytest.raises(SocketDirectoryError, match="is not a directory that only you can open"):
        make_socket_directory(data)

    shutil.rmtree(sockets)
    sockets.symlink_to(data.parent)
    with pytest.raises(SocketDirectoryError, match="is not a directory that only you can open"):
        make_socket_directory(data)
