"""Settings of every process, read once at start from the environment.

A key is ``THE_EYE_`` followed by the field's name in capitals; only those of traces have the prefix that they have
everywhere, ``OTEL_``. Addresses are ``host:port`` in one value, and no key ends in ``_PORT`` or ``_HOST``: Kubernetes
injects variables of that form for each Service, and one named ``the-eye-api`` would overwrite ours.
"""

import difflib
import os
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

import msgspec
import structlog
from msgspec import Meta

PREFIX = "THE_EYE_"

CLIENT_KEYS = frozenset({"THE_EYE_URL", "THE_EYE_TOKEN"})
"""What the client of applications reads; an environment may be theirs as well."""

T = TypeVar("T", bound="Group")


class SettingsError(Exception):
    """Raised when a setting cannot be used; its text is one line that names the key and the value."""


class Address(msgspec.Struct, frozen=True):
    """Where a server listens."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``host:port``, or ``[host]:port`` for IPv6; port 0 lets the system choose one.

        Raises ValueError with a text that says what was expected.
        """
        host, separator, port = text.rpartition(":")
        if not separator or not host or not port.isdecimal() or int(port) > 65535:  # noqa: PLR2004 - TCP's limit
            expected = "expected host:port with a port from 0 to 65535"
            raise ValueError(expected)
        return cls(host.strip("[]"), int(port))

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0, le=24 * 60 * 60)]


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """A group of settings; a subclass's fields are its keys."""

    prefix: ClassVar[str] = PREFIX

    @classmethod
    def load(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Read this group's keys from ``environ``; what is absent or empty keeps its default.

        Raises SettingsError for a value that does not fit, and for a required key that is absent.
        """
        if cls is not LogSettings:  # logging is set up from these: nothing said before is seen
            warn_of_unknown_keys(environ)
        given: dict[str, Any] = {}
        for key, field in cls.by_key().items():
            text = environ.get(key, "")
            if text:
                given[field.name] = _convert(key, field.type, text)
            elif field.required:
                message = f"{key} is not set"
                raise SettingsError(message)
        return cls(**given)

    @classmethod
    def by_key(cls) -> Mapping[str, msgspec.structs.FieldInfo]:
        """Give the fields by their keys."""
        return {cls.prefix + field.name.upper(): field for field in msgspec.structs.fields(cls)}


def _convert(key: str, type_: Any, text: str) -> object:
    try:
        if type_ is Address:
            return Address.parse(text)
        return msgspec.convert(text, type_, strict=False, dec_hook=_decode)
    except ValueError as error:
        message = f"{key}={_shown(key, text)!r} does not fit: {error}"
        raise SettingsError(message) from error


def _decode(type_: type, value: object) -> object:
    if type_ is Path:
        return Path(str(value))
    message = f"{type_} is no type of a setting"
    raise NotImplementedError(message)


def _shown(key: str, text: str) -> str:
    """Keep passwords, which stand in URLs, out of error texts."""
    return "..." if key.endswith("_URL") else text


class StoreSettings(Group, frozen=True, kw_only=True):
    """PostgreSQL."""

    database_url: Annotated[str, Meta(pattern="^postgres(ql)?://")]
    """libpq connection URI. A Unix socket is given as ``postgresql://user@/database?host=/directory``."""

    database_connect_seconds: Seconds = 5.0
    """Deadline of one attempt to connect."""

    database_statement_seconds: Seconds = 10.0
    """Deadline of one statement of a reader (``GET``); the worker's writes have their own, longer one."""


class QueueSettings(Group, frozen=True, kw_only=True):
    """Redis or Valkey, which holds accepted events until a worker has stored them."""

    redis_url: Annotated[str, Meta(pattern="^(redis|rediss|unix)://")]
    """``redis://``, ``rediss://`` or ``unix:///path/to/socket``."""

    queue_namespace: Annotated[str, Meta(min_length=1, max_length=64)] = "the-eye"
    """Prefix of every key, so that several installations can share one server."""

    queue_timeout_seconds: Seconds = 5.0
    """Deadline of one command; past it the sender gets 503, and the event may or may not have been queued."""

    queue_require_durable: bool = True
    """Refuse to answer 202 on a server known not to fsync every write (``appendonly yes``, ``appendfsync always``).

    A server that hides its configuration is trusted, with a warning."""

    worker_heartbeat_seconds: Seconds = 5.0
    """A worker that was silent for this long is taken for dead and its messages go back to the queue. Dramatiq's
    60 s left a killed worker's events missing for minutes."""


class ApiSettings(Group, frozen=True, kw_only=True):
    """The HTTP edge."""

    api_listen: Address = Address("127.0.0.1", 8000)
    api_metrics_listen: Address = Address("127.0.0.1", 9100)
    """``/metrics``, on a port of its own so that it is never reachable through the ingress."""

    token_refresh_seconds: Annotated[float, Meta(gt=0, le=8)] = 3.0
    """How often the live tokens are read. At most 8, because a revoked token must stop working within 10 seconds."""

    token_copy_max_age_seconds: Annotated[float, Meta(ge=0, le=30 * 24 * 60 * 60)] = 24 * 60 * 60.0
    """How old a copy of the tokens an API takes that starts while PostgreSQL is away; 0 keeps and takes none.

    A copy is as old as the outage, for every API renews it each minute until then. A day, as long as the queue takes
    events without a worker that stores them (``backlog_max_age_seconds``). The price: a token that was revoked past
    ``the-eye token revoke`` (in SQL, or where that did not reach the queue) while no API ran may send, though not read,
    until PostgreSQL is back."""

    group_max_events: Positive = 500
    """The most events that one write to the queue carries, beyond one request's own."""

    group_max_bytes: Annotated[int, Meta(ge=1, le=32 * 1024 * 1024)] = 4 * 1024 * 1024
    """The most payload bytes that one write carries, beyond one request's own; bounds a worker's memory, which takes no
    payload of more than 64 MiB."""

    pending_max_bytes: Positive = 64 * 1024 * 1024
    """Payload bytes that may wait for a write, and bytes of bodies that may wait for their turn; beyond either 503 at
    once, so that a slow queue cannot exhaust memory."""

    rate_limit_events_per_second: Annotated[float, Meta(ge=0, le=1e6)] = 1_000.0
    """Events that an application without a limit of its own may send per second to this process; 0 is no limit.
    A quarter of what a process takes on a slow core with single events, so that one application that floods leaves
    room for the others."""

    rate_limit_burst: Positive = 1_000
    """Events that such an application may send at once after a pause."""

    backlog_max_bytes: Positive = 4 * 1024 * 1024 * 1024
    """The queue's memory beyond which events are refused with 503: about 10 million that came singly at a low rate,
    several times as many in batches or at a high one, since messages from 16 KiB on are compressed. Set it below the
    server's own limit, whose refusals come as 503 too, but without a word about when to come back."""

    backlog_max_age_seconds: Annotated[float, Meta(gt=0, le=30 * 24 * 60 * 60)] = 24 * 60 * 60.0
    """Age of the oldest queued event beyond which events are refused with 503."""

    body_seconds: Seconds = 30.0
    """How long a sender may take over a request's body; past it 408."""

    database_pool_size: Positive = 8
    """Connections for readers."""

    api_keep_alive_seconds: Positive = 75
    """How long a connection may be idle. Longer than with the proxies before it (60 by default in nginx and in load
    balancers): who closes must be who knows that no request is on its way."""

    api_drain_seconds: Annotated[float, Meta(ge=0, le=60 * 60)] = 5.0
    """How long after SIGTERM connections go on, each until the next answer on it, which says that it is the last one.
    It is over at once when no connection is left."""

    sign_in_seconds: Seconds = 12 * 60 * 60.0
    """For how long a person stays signed in to the pages."""

    forwarded_hops: Annotated[int, Meta(ge=0, le=10)] = 0
    """Proxies before this process, such as an ingress controller, whose ``X-Forwarded-For`` is believed: it tells whose
    attempts to sign in have failed too often. With 0 it is whoever opened the connection."""

    trace_url: Annotated[str, Meta(pattern=r"^https?://\S*\{trace_id\}\S*$")] = ""
    """Where traces are looked at, for a link from an event to the one that it came with: Grafana's, Jaeger's or
    another address with ``{trace_id}`` in place of the id."""

    api_shutdown_seconds: Seconds = 20.0
    """How long requests may take to finish after that; Kubernetes kills 30 seconds after SIGTERM by default."""


class RuleSettings(Group, frozen=True, kw_only=True):
    """Where the rules come from and what is built in."""

    rules_dir: Path | None = None
    """Directory of ValidatorRule manifests; without one no rules are in force."""

    rules_poll_seconds: Seconds = 0.5
    """How often the directory is looked at. A change is taken once two looks agree, so that a file that is still
    being written is not read by half."""

    future_tolerance_seconds: Annotated[float, Meta(ge=0, le=10 * 365 * 24 * 60 * 60)] = 300.0
    """How far an event's timestamp may lie after its arrival before that is a violation."""

    @property
    def future_tolerance(self) -> timedelta:
        """``future_tolerance_seconds`` as a duration."""
        return timedelta(seconds=self.future_tolerance_seconds)


class WorkerSettings(Group, frozen=True, kw_only=True):
    """The worker process."""

    worker_threads: Annotated[int, Meta(ge=1, le=64)] = 2
    """While one waits for its commit another computes; more of them take time from one another."""

    worker_metrics_listen: Address = Address("127.0.0.1", 9101)
    """``/metrics``, ``/ruleset``, ``/healthz`` and ``/readyz``."""

    worker_write_seconds: Seconds = 60.0
    """Deadline of one statement that stores events; past it the message is tried again."""

    worker_shutdown_seconds: Seconds = 25.0
    """How long a message in work may take to finish after SIGTERM; Kubernetes kills after 30 by default."""


class OperatorSettings(Group, frozen=True, kw_only=True):
    """The operator, which turns ValidatorRules of Kubernetes into the ruleset that workers mount."""

    operator_namespace: Annotated[str, Meta(max_length=63)] = ""
    """Where the ruleset's ConfigMaps and the workers are; empty for the namespace of the credentials."""

    operator_rule_namespaces: str = ""
    """Namespaces whose ValidatorRules count, with commas between; empty for ``operator_namespace`` alone."""

    operator_ruleset_name: Annotated[str, Meta(max_length=200, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")] = (
        "the-eye-ruleset"
    )
    """Name of the index's ConfigMap; those of the slots have a number after it."""

    operator_worker_selector: Annotated[str, Meta(min_length=1)] = (
        "app.kubernetes.io/name=the-eye,app.kubernetes.io/component=worker"
    )
    """Labels of the workers' pods."""

    operator_worker_port: Annotated[str, Meta(min_length=1, max_length=15)] = "metrics"
    """Name of the container port at which a worker's pod answers ``GET /ruleset``."""

    operator_listen: Address = Address("127.0.0.1", 9102)
    """``/metrics`` and ``/healthz``."""

    operator_debounce_seconds: Annotated[float, Meta(ge=0, le=60)] = 0.2
    """How long a change waits for others that come with it, as in ``kubectl apply`` of a folder."""

    operator_resync_seconds: Seconds = 120.0
    """How often everything is read anew, watches or not."""

    operator_worker_poll_seconds: Seconds = 1.0
    """How often the workers are asked for their ruleset while one is behind; ten times as long otherwise."""

    operator_audit_seconds: Seconds = 300.0
    """How often the counts of rules in Audit are brought up to date."""


class RetentionSettings(Group, frozen=True, kw_only=True):
    """What ``the-eye maintain`` keeps."""

    retention_days: Positive = 90
    """Partitions older than this are dropped."""

    partitions_ahead_days: Annotated[int, Meta(ge=1, le=366)] = 7
    """Partitions are made this far ahead; maintenance that fails for less than this does no harm."""


class LogSettings(Group, frozen=True, kw_only=True):
    """Logs go to standard error."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "console"] = "auto"
    """``auto``: readable on a terminal, JSON elsewhere."""


class TelemetrySettings(Group, frozen=True, kw_only=True):
    """Traces. The keys are OpenTelemetry's own.

    Its SDK reads further ones by itself: ``OTEL_SERVICE_NAME``, ``OTEL_RESOURCE_ATTRIBUTES``, those of batches
    (``OTEL_BSP_*``), of limits (``OTEL_SPAN_*``) and of the exporter (``OTEL_EXPORTER_OTLP_HEADERS`` and so on).
    """

    prefix: ClassVar[str] = "OTEL_"

    sdk_disabled: bool = False
    traces_exporter: Literal["otlp", "none"] = "otlp"

    exporter_otlp_endpoint: str = ""
    """Where a collector takes OTLP; there are no traces unless this or the next one is given."""

    exporter_otlp_traces_endpoint: str = ""
    """The same with the path, for traces alone."""

    exporter_otlp_protocol: Literal["http/protobuf"] = "http/protobuf"
    exporter_otlp_traces_protocol: Literal["http/protobuf"] = "http/protobuf"

    traces_sampler: Literal[
        "always_on",
        "always_off",
        "traceidratio",
        "parentbased_always_on",
        "parentbased_always_off",
        "parentbased_traceidratio",
    ] = "parentbased_always_on"

    traces_sampler_arg: Annotated[float, Meta(ge=0, le=1)] = 1.0
    """The share of requests that the samplers by ratio take."""

    @property
    def on(self) -> bool:
        """Whether there are traces."""
        endpoint = self.exporter_otlp_traces_endpoint or self.exporter_otlp_endpoint
        return bool(endpoint) and self.traces_exporter == "otlp" and not self.sdk_disabled

    @property
    def by_parent(self) -> bool:
        """Whether a sender that has decided is followed."""
        return self.traces_sampler.startswith("parentbased_")

    @property
    def ratio(self) -> float:
        """The share of the other requests that is traced."""
        kind = self.traces_sampler.removeprefix("parentbased_")
        return {"always_on": 1.0, "always_off": 0.0}.get(kind, self.traces_sampler_arg)


_warned: set[str] = set()
"""Keys that this process has warned of."""


def warn_of_unknown_keys(environ: Mapping[str, str]) -> None:
    """Log each ``THE_EYE_*`` key that no group knows, once per process, with the known one that is nearest.

    A warning and no error: commands of this and of other versions share an environment.
    """
    known = {key for group in Group.__subclasses__() for key in group.by_key()}
    for key in sorted(_unknown(environ, known) - _warned):
        _warned.add(key)
        # All have the prefix in common, so that less than this is no likeness.
        nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.8)
        _log().warning("unknown_setting", key=key, nearest=nearest[0] if nearest else None)


def _unknown(environ: Mapping[str, str], known: set[str]) -> set[str]:
    given = {key for key in environ if key.startswith(PREFIX)}
    # Kubernetes injects these for a Service that is called the-eye, the-eye-api and so on.
    services = [key.removesuffix("SERVICE_HOST") for key in given if key.endswith("_SERVICE_HOST")]
    injected = tuple(service + part for service in services for part in ("SERVICE_", "PORT"))
    return {key for key in given - known - CLIENT_KEYS if not key.startswith(injected)}


def _log() -> structlog.typing.WrappedLogger:
    """Log as the process does; commands set up no logging, and their standard output is for what was asked."""
    if structlog.is_configured():
        return structlog.get_logger(__name__)
    processors: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.dev.ConsoleRenderer(colors=False),
    ]
    return structlog.wrap_logger(structlog.PrintLogger(sys.stderr), processors=processors)
