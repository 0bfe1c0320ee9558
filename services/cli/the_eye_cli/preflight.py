"""What ``the-eye up`` checks before it starts anything."""

import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from the_eye.settings import PREFIX, Address, ApiSettings, Group, QueueSettings, StoreSettings, WorkerSettings
from the_eye_cli.embedded import EmbeddedPostgres, EmbeddedServerError, EmbeddedValkey
from the_eye_cli.prometheus import Prometheus, PrometheusError
from the_eye_cli.sockets import SocketDirectoryError, make_socket_directory, remove_socket_directory

DATABASE_URL = f"{PREFIX}DATABASE_URL"
REDIS_URL = f"{PREFIX}REDIS_URL"

ADDRESS_SECONDS = 1.0
"""How long a port in use is tried again: a run that was killed a moment ago may still be letting go of it."""

Server = TypeVar("Server", EmbeddedPostgres, EmbeddedValkey)


class PreflightError(Exception):
    """Raised when the way is not clear; its text is one line for people."""


class Observing(msgspec.Struct, frozen=True):
    """How a Prometheus is to be started beside the services."""

    config: Path
    listen: Address


class Plan(msgspec.Struct, frozen=True):
    """What is to be started, all of it checked."""

    data: Path
    rules: Path
    workers: tuple[Address, ...]
    """Where each worker answers."""
    postgres: EmbeddedPostgres | None
    """None: the server of THE_EYE_DATABASE_URL."""
    valkey: EmbeddedValkey | None
    """None: the server of THE_EYE_REDIS_URL."""
    prometheus: Prometheus | None
    """None: not asked for."""
    environ: Mapping[str, str]
    """The environment of the services."""

    @property
    def api(self) -> ApiSettings:
        """The HTTP edge."""
        return ApiSettings.load(self.environ)

    @property
    def worker(self) -> WorkerSettings:
        """The first worker."""
        return WorkerSettings.load(self.environ)

    @property
    def store(self) -> StoreSettings:
        """PostgreSQL."""
        return StoreSettings.load(self.environ)

    @property
    def queue(self) -> QueueSettings:
        """Redis or Valkey."""
        return QueueSettings.load(self.environ)


@contextmanager
def checked_plan(
    data: Path, rules: Path, workers: int, observing: Observing | None, environ: Mapping[str, str]
) -> Iterator[Plan]:
    """Check everything and keep the data folder from other runs while the block runs.

    Raises SettingsError or PreflightError.
    """
    data, rules = data.resolve(), rules.resolve()
    check_settings(environ)
    check_rules(rules)
    with data_folder(data), _sockets(data, environ) as sockets:
        answering = check_addresses(environ, workers, observing)
        try:
            prometheus = Prometheus(data, observing.config, observing.listen) if observing else None
            postgres = None if environ.get(DATABASE_URL) else _checked(EmbeddedPostgres(data, sockets))
            valkey = None if environ.get(REDIS_URL) else _checked(EmbeddedValkey(data, sockets))
        except (EmbeddedServerError, PrometheusError, OSError) as error:
            raise PreflightError(str(error)) from error
        urls = {DATABASE_URL: postgres.url if postgres else "", REDIS_URL: valkey.url if valkey else ""}
        ours = {key: url for key, url in urls.items() if url} | {f"{PREFIX}RULES_DIR": str(rules)}
        yield Plan(data, rules, answering, postgres, valkey, prometheus, {**environ, **ours})


def _checked(server: Server) -> Server:
    server.check()
    return server


def check_settings(environ: Mapping[str, str]) -> None:
    """See that every group of settings can be read, not only those that are needed here.

    Raises SettingsError.
    """
    given = {key: value for key, value in environ.items() if value}
    for group in Group.__subclasses__():
        group.load({DATABASE_URL: "postgresql://", REDIS_URL: "unix://", **given})


def check_rules(rules: Path) -> None:
    """See that the rules can be read.

    Raises PreflightError.
    """
    try:
        next(rules.iterdir(), None)
    except OSError as error:
        message = f"the rules directory {rules} cannot be read ({error.strerror}): name another with --rules"
        raise PreflightError(message) from error


@contextmanager
def data_folder(data: Path) -> Iterator[None]:
    """Make the data folder and what is common in it, and lock it.

    The lock goes with the process, however that ends. Raises PreflightError.
    """
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        (data / "logs").mkdir(mode=0o700, exist_ok=True)
        lock = os.open(data / "up.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        message = f"the data folder {data} cannot be written ({error.strerror}): choose another with --data"
        raise PreflightError(message) from error
    try:
        _lock(lock, data)
        yield
    finally:
        os.close(lock)


def _lock(lock: int, data: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        pid = os.pread(lock, 20, 0).decode(errors="replace").strip()
        message = f"another `the-eye up` (process {pid}) uses {data}: stop it, or choose another folder with --data"
        raise PreflightError(message) from error
    os.truncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)


@contextmanager
def _sockets(data: Path, environ: Mapping[str, str]) -> Iterator[Path]:
    """Give the directory of sockets, which is made only when an embedded server needs it."""
    if environ.get(DATABASE_URL) and environ.get(REDIS_URL):
        yield data
        return
    try:
        directory = make_socket_directory(data)
    except (SocketDirectoryError, OSError) as error:
        raise PreflightError(str(error)) from error
    try:
        yield directory
    finally:
        remove_socket_directory(directory, data)


def check_addresses(environ: Mapping[str, str], workers: int, observing: Observing | None) -> tuple[Address, ...]:
    """See that the services can listen where they are to; gives the workers' addresses.

    The settings have that of the first worker; the others have the ports that follow, so that whoever scrapes them can
    know them beforehand. Raises PreflightError.
    """
    api, worker = ApiSettings.load(environ), WorkerSettings.load(environ)
    first = worker.worker_metrics_listen
    others = tuple(Address(first.host, first.port + number) for number in range(1, workers))
    addresses = {
        f"{PREFIX}API_LISTEN": api.api_listen,
        f"{PREFIX}API_METRICS_LISTEN": api.api_metrics_listen,
        f"{PREFIX}WORKER_METRICS_LISTEN": first,
        **{f"/metrics of worker-{number}": address for number, address in enumerate(others, 2)},
        **({"--prometheus-listen": observing.listen} if observing else {}),
    }
    # All are held until the last one is checked, so that two equal ones are found.
    with ExitStack() as held:
        for key, address in addresses.items():
            held.enter_context(_listening(key, address))
    return (first, *others)


def _listening(key: str, address: Address) -> socket.socket:
    if address.port == 0:
        message = f"{key}={address}: `the-eye up` needs a port that is known beforehand"
        raise PreflightError(message)
    deadline = time.monotonic() + ADDRESS_SECONDS
    while True:
        try:
            return _listen(address)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                message = f"{address} ({key}) cannot be used: {error.strerror}"
                raise PreflightError(message) from error
            if time.monotonic() > deadline:
                message = f"{address} ({key}) is in use"
                raise PreflightError(message) from error
            time.sleep(0.05)


def _listen(address: Address) -> socket.socket:
    family, *_, where = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family)
    try:
        # As servers do: a port whose connections are still closing is free.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener
