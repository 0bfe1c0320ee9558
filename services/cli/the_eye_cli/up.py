"""``the-eye up``: everything on this machine, from one command."""

import asyncio
import os
import shlex
import signal
import sys
import time
from collections.abc import Coroutine, Mapping
from pathlib import Path
from signal import Signals
from typing import Any

import click

from the_eye.settings import PREFIX, Address, LogSettings
from the_eye.store.connect import redact
from the_eye_cli.console import Console
from the_eye_cli.demo import USER, DemoError, curl_lines, demo_password, demo_token, write_private
from the_eye_cli.embedded import EmbeddedPostgres, EmbeddedServerError, EmbeddedValkey
from the_eye_cli.preflight import DATABASE_URL, REDIS_URL, Observing, Plan, PreflightError, checked_plan
from the_eye_cli.probes import reachable, why_no_database, why_no_queue, why_not_ok
from the_eye_cli.supervisor import Child, ChildFailureError, Probe, Spec, Stage, Supervisor

ENVIRONMENT_FILE = "env"

SELF = (sys.executable, "-m", "the_eye_cli")

INITDB_SECONDS = 120.0
STORE_SECONDS = 120.0
"""After a crash PostgreSQL reads back up to ``max_wal_size``, and Valkey its whole file."""

MIGRATE_SECONDS = 600.0
MAINTAIN_SECONDS = 600.0
MAINTAIN_EVERY_SECONDS = 60 * 60.0
READY_SECONDS = 30.0
OWN_SERVER_SECONDS = 5.0

API_STOP_SECONDS = 30.0
WORKER_STOP_SECONDS = 5.0
"""On top of the worker's own deadline, ``worker_shutdown_seconds``."""
STORE_STOP_SECONDS = 30.0
STORE_HURRIED_SECONDS = 5.0

HURRY_AFTER_SECONDS = 1.0
"""A second signal sooner than this is the same wish that came on two ways, as from a terminal and from make."""

START_ERRORS = (ChildFailureError, EmbeddedServerError)


class AddressType(click.ParamType[Address]):
    """An option that is ``host:port``."""

    name = "host:port"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        """Read it."""
        try:
            return Address.parse(value)
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)


ADDRESS = AddressType()


@click.command()
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    default=Path(".the-eye"),
    show_default=True,
    help="Folder of the data, the logs, the demo token and the demo password.",
)
@click.option(
    "--rules",
    type=click.Path(path_type=Path),
    default=Path("k8s/rules"),
    show_default=True,
    envvar=f"{PREFIX}RULES_DIR",
    help="Directory of ValidatorRule manifests.",
)
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Number of workers.")
@click.option("--observe", is_flag=True, help="Run Prometheus, too, with recording rules and alerts.")
@click.option(
    "--prometheus-config",
    type=click.Path(path_type=Path),
    default=Path("observability/prometheus/prometheus.yml"),
    show_default=True,
    help="What --observe configures Prometheus with.",
)
@click.option(
    "--prometheus-listen",
    type=ADDRESS,
    default="127.0.0.1:9103",
    show_default=True,
    help="Where the Prometheus of --observe listens.",
)
def up(  # noqa: PLR0913 - click has one for each option
    *, data: Path, rules: Path, workers: int, observe: bool, prometheus_config: Path, prometheus_listen: Address
) -> None:
    """Run everything on this machine until Ctrl-C.

    PostgreSQL and Valkey are started too, unless THE_EYE_DATABASE_URL and THE_EYE_REDIS_URL name servers of your own.
    All else is set by THE_EYE_* variables.
    """
    observing = Observing(prometheus_config, prometheus_listen) if observe else None
    try:
        with checked_plan(data, rules, workers, observing, os.environ) as plan:
            status = asyncio.run(run(plan, Console()))
    except PreflightError as error:
        raise click.ClickException(str(error)) from error
    sys.exit(status)


async def run(plan: Plan, console: Console) -> int:
    """Start everything, keep it running until a signal or a failure, and stop it in order; give the exit status."""
    stop = StopRequest(console)
    supervisor = Supervisor(console, plan.data / "logs")
    machine = asyncio.create_task(Machine(plan, supervisor, console).run())
    ends: set[asyncio.Future[Any]] = {machine, supervisor.failed, stop.requested}
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        failure = _failure(machine, supervisor)
        if failure is not None:
            console.line(f"Error: {failure}")
    finally:
        # Only when nothing can be started any more is it known what has to be stopped.
        machine.cancel()
        await asyncio.wait({machine})
        clean = await supervisor.stop(stop.hurry)
    return 0 if clean and failure is None else 1


def _failure(machine: "asyncio.Task[None]", supervisor: Supervisor) -> Exception | None:
    if supervisor.failed.done():
        return supervisor.failed.result()
    try:
        if machine.done():
            machine.result()
    except START_ERRORS as error:
        return error
    return None


class StopRequest:
    """The wish of a person, or of the system, that all should end."""

    def __init__(self, console: Console) -> None:
        """Listen for signals from now on."""
        self._console = console
        self._since = 0.0
        loop = asyncio.get_running_loop()
        self.requested: asyncio.Future[Signals] = loop.create_future()
        self.hurry = asyncio.Event()
        """Set when it was said again."""
        for number in (Signals.SIGINT, Signals.SIGTERM, Signals.SIGHUP):
            # Under nohup SIGHUP is ignored, and stays so.
            if signal.getsignal(number) is not signal.SIG_IGN or number is Signals.SIGINT:
                loop.add_signal_handler(number, self._receive, number)

    def _receive(self, number: Signals) -> None:
        if not self.requested.done():
            self._since = time.monotonic()
            self.requested.set_result(number)
            self._console.line(f"{number.name}: stopping; Ctrl-C hurries")
        elif time.monotonic() - self._since > HURRY_AFTER_SECONDS and not self.hurry.is_set():
            self._console.line(f"{number.name}: hurrying")
            self.hurry.set()


class Machine:
    """The parts and the order in which they come up."""

    def __init__(self, plan: Plan, supervisor: Supervisor, console: Console) -> None:
        self._plan = plan
        self._supervisor = supervisor
        self._console = console
        self._environ = _environment(plan, console)

    async def run(self) -> None:
        """Start all parts, say how to use them, and maintain the store until cancelled.

        Raises ChildFailureError or EmbeddedServerError when a part does not come up.
        """
        started = time.monotonic()
        await _together(self._start_database(), self._start_queue())
        await self._run_command("migrate", "Migrations", MIGRATE_SECONDS)
        await self._run_command("maintain", "Partitions", MAINTAIN_SECONDS)
        _write_environment(self._plan)
        token, password = await self._demo_token(), await self._demo_password()
        await _together(self._start_api(), self._start_workers(), self._start_prometheus())
        Console(sys.stdout).line(summary(self._plan, token, password, time.monotonic() - started))
        await self._maintain()

    async def _start_database(self) -> None:
        server = self._plan.postgres
        if server is None:
            return await self._find(DATABASE_URL, lambda: why_no_database(self._plan.store.database_url))
        if server.is_new:
            await self._initialize(server)
        async with self._console.step(server.title, "ready"):
            await self._start_server(server)
            await server.create_database()
        return None

    async def _initialize(self, server: EmbeddedPostgres) -> None:
        async with self._console.step(f"{server.title}, new data folder", "made"):
            spec = Spec(name="initdb", command=server.initdb_command(), environ=self._environ, stage=Stage.TASK)
            await self._supervisor.run(spec, INITDB_SECONDS)
            server.adopt()

    async def _start_queue(self) -> None:
        server = self._plan.valkey
        if server is None:
            return await self._find(REDIS_URL, lambda: why_no_queue(self._plan.queue.redis_url))
        async with self._console.step(server.title, "ready"):
            await self._start_server(server)
        return None

    async def _start_server(self, server: EmbeddedPostgres | EmbeddedValkey) -> None:
        spec = Spec(
            name=server.name,
            command=server.command,
            environ=self._environ,
            stage=Stage.STORE,
            stop_signal=server.stop_signal,
            stop_seconds=STORE_STOP_SECONDS,
            hurried_seconds=STORE_HURRIED_SECONDS,
        )
        await self._supervisor.ready(await self._supervisor.start(spec), server.why_not_ready, STORE_SECONDS)

    async def _find(self, key: str, probe: Probe) -> None:
        """Wait for a server of the user's own."""
        async with self._console.step(f"Server of {key}", "ready"):
            deadline = time.monotonic() + OWN_SERVER_SECONDS
            while reason := await probe():
                if time.monotonic() > deadline:
                    message = f"the server of {key} does not answer: {reason}"
                    raise ChildFailureError(message)
                await asyncio.sleep(0.5)

    async def _run_command(self, name: str, title: str, seconds: float) -> None:
        async with self._console.step(title, "done"):
            spec = Spec(name=name, command=[*SELF, name], environ=self._environ, stage=Stage.TASK)
            await self._supervisor.run(spec, seconds)

    async def _demo_token(self) -> str:
        """Give the demo token, or nothing: not all servers of a user's own let one be made."""
        async with self._console.step("Application demo", "ready") as step:
            try:
                return await demo_token(self._plan.store, self._plan.data / "demo-token")
            except DemoError as error:
                step.done = f"has no token ({error})"
        return ""

    async def _demo_password(self) -> str:
        """Give the demo user's password, or nothing where it is not known."""
        async with self._console.step("User demo", "ready") as step:
            try:
                password = await demo_password(self._plan.store, self._plan.data / "demo-password")
            except DemoError as error:
                step.done = f"is not to be had ({error})"
                return ""
            if not password:
                step.done = "has no password that is known here"
            return password

    async def _start_api(self) -> None:
        async with self._console.step("API", "ready"):
            child = await self._start_service("api", "api", Stage.EDGE, API_STOP_SECONDS)
            listen = self._plan.api.api_listen
            await self._supervisor.ready(child, lambda: why_not_ok(listen, "/readyz"), READY_SECONDS)

    async def _start_workers(self) -> None:
        first, *others = self._plan.workers
        async with self._console.step(f"{len(others) + 1} workers" if others else "Worker", "ready"):
            child = await self._start_worker("worker-1" if others else "worker", first)
            for number, listen in enumerate(others, start=2):
                await self._start_worker(f"worker-{number}", listen)
            await self._supervisor.ready(child, lambda: why_not_ok(first, "/readyz"), READY_SECONDS)

    async def _start_worker(self, name: str, metrics: Address) -> Child:
        seconds = self._plan.worker.worker_shutdown_seconds + WORKER_STOP_SECONDS
        return await self._start_service(
            name, "worker", Stage.WORKER, seconds, {f"{PREFIX}WORKER_METRICS_LISTEN": str(metrics)}
        )

    async def _start_prometheus(self) -> None:
        server = self._plan.prometheus
        if server is None:
            return
        async with self._console.step(server.title, "ready"):
            server.configure({"the-eye-api": [self._plan.api.api_metrics_listen], "the-eye-worker": self._plan.workers})
            spec = Spec(
                name=server.name,
                command=server.command,
                environ=self._environ,
                stage=Stage.OBSERVER,
                stop_seconds=STORE_STOP_SECONDS,
            )
            await self._supervisor.ready(await self._supervisor.start(spec), server.why_not_ready, READY_SECONDS)

    async def _start_service(
        self, name: str, command: str, stage: Stage, stop_seconds: float, environ: Mapping[str, str] | None = None
    ) -> Child:
        spec = Spec(
            name=name,
            command=[*SELF, command],
            environ={**self._environ, **(environ or {})},
            stage=stage,
            stop_seconds=stop_seconds,
            shown=True,
        )
        return await self._supervisor.start(spec)

    async def _maintain(self) -> None:
        """Keep partitions made ahead; what fails is tried again in an hour, days before it is needed."""
        while True:
            await asyncio.sleep(MAINTAIN_EVERY_SECONDS)
            try:
                await self._run_command("maintain", "Partitions", MAINTAIN_SECONDS)
            except ChildFailureError as error:
                self._console.line(f"Warning: {error}")


async def _together(*parts: Coroutine[Any, Any, None]) -> None:
    """Run ``parts`` at once; when one fails the others are cancelled, and its error is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            for part in parts:
                group.create_task(part)
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None


def _environment(plan: Plan, console: Console) -> Mapping[str, str]:
    """Make the environment of the children: their logs are read here, and are readable where a person reads them."""
    readable = console.is_terminal and LogSettings.load(plan.environ).log_format == "auto"
    log_format = {f"{PREFIX}LOG_FORMAT": "console"} if readable else {}
    alone = {f"{PREFIX}API_DRAIN_SECONDS": "0"}  # senders have no other API to go to
    return {**alone, **plan.environ, **log_format, "PYTHONUNBUFFERED": "1"}


def _write_environment(plan: Plan) -> None:
    """Leave what other commands need to find these servers where a shell can read it."""
    settings = {DATABASE_URL: plan.store.database_url, REDIS_URL: plan.queue.redis_url}
    lines = "".join(f"export {key}={shlex.quote(value)}\n" for key, value in settings.items())
    write_private(plan.data / ENVIRONMENT_FILE, lines)


def summary(plan: Plan, token: str, password: str, seconds: float) -> str:
    """Say where everything is and how to try it."""
    api, metrics = reachable(plan.api.api_listen), reachable(plan.api.api_metrics_listen)
    worker = reachable(plan.worker.worker_metrics_listen)
    others = f", up to port {plan.workers[-1].port}" if len(plan.workers) > 1 else ""
    database = shlex.join(plan.postgres.psql) if plan.postgres else redact(plan.store.database_url)
    sign_in = f" (sign in as {USER} with {password})" if password else ""
    observed = (
        f"  Prometheus      {plan.prometheus.url}/alerts, {plan.prometheus.url}/targets\n" if plan.prometheus else ""
    )
    places = f"""
The Eye is up after {seconds:.1f} s. Ctrl-C stops it.

  Pages           http://{api}/ui/events{sign_in}
  Swagger UI      http://{api}/api/schema/swagger-ui
  API metrics     http://{metrics}/metrics
  Worker metrics  http://{worker}/metrics{others}
  Ruleset         http://{worker}/ruleset
{observed}  Rules           {plan.rules}
  Data            {plan.data}
  Database        {database}
  Commands        . {shlex.quote(str(plan.data / ENVIRONMENT_FILE))} (for the-eye application, token, dead, ...)
"""
    if not token:
        return places
    send, read = curl_lines(api, token)
    return f"{places}  Token           {token}\n\nSend an event:\n\n{send}\n\nRead it back a moment later:\n\n{read}\n"
