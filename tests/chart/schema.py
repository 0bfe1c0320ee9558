"""values.schema.json, made of values.yaml and of The Eye's settings: what a key is called says what may be in it."""

from collections.abc import Iterable
from typing import Any

import msgspec
from tests.chart import values
from tests.chart.values import CHART, Value

from the_eye.settings import (
    PREFIX,
    ApiSettings,
    Group,
    LogSettings,
    OperatorSettings,
    QueueSettings,
    RetentionSettings,
    RuleSettings,
    StoreSettings,
    WorkerSettings,
)

Schema = dict[str, Any]

FILE = CHART / "values.schema.json"

COMMON = (LogSettings, StoreSettings, QueueSettings)
SETTINGS: dict[str, tuple[type[Group], ...]] = {
    "settings": COMMON,
    "api.settings": (*COMMON, ApiSettings),
    "worker.settings": (*COMMON, WorkerSettings, RuleSettings),
    "operator.settings": (LogSettings, StoreSettings, OperatorSettings),
    "tasks.maintenance.settings": (LogSettings, StoreSettings, RetentionSettings),
}
"""What the process that is given these settings reads."""

SET_BY_CHART = frozenset(
    PREFIX + key
    for key in (
        "API_DRAIN_SECONDS",
        "API_LISTEN",
        "API_METRICS_LISTEN",
        "API_SHUTDOWN_SECONDS",
        "DATABASE_URL",
        "OPERATOR_LISTEN",
        "OPERATOR_NAMESPACE",
        "OPERATOR_RULESET_NAME",
        "OPERATOR_RULE_NAMESPACES",
        "OPERATOR_WORKER_PORT",
        "OPERATOR_WORKER_SELECTOR",
        "REDIS_URL",
        "RULES_DIR",
        "WORKER_METRICS_LISTEN",
        "WORKER_SHUTDOWN_SECONDS",
    )
)
"""Settings that follow from other values, so that they are not for the user to give."""

NAME = "[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?"
LABEL = "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
QUANTITY = r"[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?"
NOT_ZERO: Schema = {"not": {"pattern": "^[0.]+[A-Za-z]*$"}}
"""No target can be nothing for each pod."""


def text(pattern: str = "", *, optional: bool = False) -> Schema:
    """Text that is a pattern as a whole, or where that is ``optional``, empty."""
    whole = f"^({pattern})?$" if optional else f"^{pattern}$"
    return {"type": "string", "pattern": whole} if pattern else {"type": "string"}


def number(least: int, most: int | None = None) -> Schema:
    """A whole number."""
    return {"type": "integer", "minimum": least} | ({} if most is None else {"maximum": most})


def many(item: Schema) -> Schema:
    """A list."""
    return {"type": "array", "items": item}


def record(properties: Schema, *, required: Iterable[str] = ()) -> Schema:
    """An object of these keys and no others."""
    found: Schema = {"type": "object", "additionalProperties": False, "properties": properties}
    return found | ({"required": list(required)} if required else {})


OBJECT: Schema = {"type": "object"}
"""What only Kubernetes knows the fields of."""

TEXTS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
QUANTITIES: Schema = {"type": "object", "additionalProperties": {"type": ["string", "number"]}}
OWN_LABELS: Schema = TEXTS | {"propertyNames": {"not": {"pattern": "^(app[.]kubernetes[.]io|helm[.]sh)/"}}}
"""The labels that selectors look at, and that name the chart, are the chart's."""

PORT = number(1, 65535)
PORTS = many(PORT)

SHARE = text(r"0\.[0-9]+")

POLICY = record(
    {"type": {"enum": ["Percent", "Pods"]}, "value": number(1), "periodSeconds": number(1, 1800)},
    required=("type", "value", "periodSeconds"),
)
DIRECTION = record(
    {
        "stabilizationWindowSeconds": number(0, 3600),
        "selectPolicy": {"enum": ["Max", "Min", "Disabled"]},
        "policies": many(POLICY),
        "tolerance": {"type": ["string", "number"]},
    }
)
USER = number(1, 2**31 - 1)
"""The `restricted` standard refuses root."""
USER_OR_NONE = USER | {"type": ["integer", "null"]}

BY_PATH: dict[str, Schema] = {
    "podSecurity.runAsUser": USER_OR_NONE,
    "podSecurity.runAsGroup": USER_OR_NONE,
    "podSecurity.fsGroup": USER_OR_NONE,
    "image.tag": text(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", optional=True) | {"not": {"const": "latest"}},
    "image.pullSecrets": many(record({"name": text(NAME)}, required=("name",))),
    "image.registry": text(r"[a-z0-9.:/_-]+", optional=True),
    "tracing.endpoint": text("https?://.+", optional=True),
    "tracing.ratio": {"type": "number", "minimum": 0, "maximum": 1},
    "ruleset.name": text("[a-z0-9]([-a-z0-9]{0,198}[a-z0-9])?", optional=True),
    "networkPolicy.otlp.ports": PORTS,
    "worker.keda.query": text(),
    "metrics.prometheusRule.grafanaUrl": text(r'https?://[^\s"#{}]+', optional=True),
}

BY_KEY: dict[str, Schema] = {
    "acceptAvailability": SHARE,
    "acceptLatency": SHARE,
    "affinity": OBJECT,
    "annotations": TEXTS,
    "averageValue": text(QUANTITY, optional=True) | NOT_ZERO,
    "behavior": record({"scaleUp": DIRECTION, "scaleDown": DIRECTION}),
    "className": text(NAME, optional=True),
    "cpu": text(QUANTITY, optional=True) | NOT_ZERO,
    "drainSeconds": number(0, 3600),
    "digest": text("sha256:[0-9a-f]{64}", optional=True),
    "existingSecret": text(NAME, optional=True),
    "existingSecretKey": text("[-._a-zA-Z0-9]{1,253}"),
    "extraEgress": many(OBJECT),
    "extraEnv": many(OBJECT | {"required": ["name"]}),
    "extraTriggers": many(OBJECT | {"required": ["type"]}),
    "extraVolumeMounts": many(OBJECT | {"required": ["name", "mountPath"]}),
    "extraVolumes": many(OBJECT | {"required": ["name"]}),
    "fallbackReplicas": number(1),
    "freshness": SHARE,
    "from": many(OBJECT),
    "hostnames": many(text(r"(\*\.)?" + NAME)),
    "hosts": many(text(r"(\*\.)?" + NAME)),
    "interval": text("[0-9]+(ms|s|m|h)"),
    "labels": OWN_LABELS,
    "maxMemoryMiB": number(16),
    "maxReplicas": number(1),
    "maxUnavailable": {"anyOf": [number(1), text("[1-9][0-9]?%|100%")]},
    "metric": text("[a-zA-Z_:][a-zA-Z0-9_:]*"),
    "minReplicas": number(1),
    "name": text(LABEL, optional=True),
    "nodeSelector": TEXTS,
    "parentRefs": many(OBJECT | {"required": ["name"]}),
    "podAnnotations": TEXTS,
    "podLabels": OWN_LABELS,
    "pollingInterval": number(1),
    "port": PORT,
    "ports": PORTS | {"minItems": 1},
    "preStopSeconds": number(0, 600),
    "priorityClassName": text(NAME, optional=True),
    "pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
    "redisMemoryShare": SHARE,
    "repository": text("[a-z0-9]([a-z0-9._/-]*[a-z0-9])?"),
    "resources": record({"requests": QUANTITIES, "limits": QUANTITIES, "claims": many(OBJECT)}),
    "ruleNamespaces": many(text(LABEL)),
    "runAsUser": USER,
    "runbookBaseUrl": text("[^ ]+"),
    "secretName": text(NAME, optional=True),
    "selector": TEXTS,
    "serverAddress": text("https?://.+", optional=True),
    "shutdownSeconds": number(1, 3600),
    "size": text(QUANTITY),
    "storageClassName": text(NAME, optional=True),
    "threshold": text(r"[0-9]+(\.[0-9]+)?") | NOT_ZERO,
    "to": many(OBJECT),
    "tolerations": many(OBJECT),
    "topologySpread": many(text()),
    "type": {"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
}


def make() -> str:
    """Make the file."""
    root = record({})
    # What a chart that has this one as a part of it hands down.
    root["properties"]["global"] = OBJECT
    schema = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Values of the chart the-eye", **root}
    for value in values.read():
        _add(schema, value)
    return msgspec.json.format(msgspec.json.encode(schema), indent=2).decode() + "\n"


def _add(schema: Schema, value: Value) -> None:
    for key in value.path[:-1]:
        schema = schema["properties"][key]
    made = record({}) if value.is_section else _leaf(value)
    schema["properties"][value.path[-1]] = ({"description": value.comment} if value.comment else {}) | made


def _leaf(value: Value) -> Schema:
    path, key = ".".join(value.path), value.path[-1]
    if path in SETTINGS:
        return settings(SETTINGS[path])
    suffixes = [".".join(value.path[start:]) for start in range(len(value.path))]
    for known in suffixes:
        if known in BY_PATH:
            return BY_PATH[known]
    return BY_KEY.get(key) or _of_default(value)


def _of_default(value: Value) -> Schema:
    match value.default:
        case bool():
            return {"type": "boolean"}
        case int():
            return number(0)
        case str():
            return text()
    message = f"{'.'.join(value.path)}: the schema does not know what may be in it"
    raise ValueError(message)


def settings(groups: Iterable[type[Group]]) -> Schema:
    """Allow the settings of these groups that are not the chart's to give."""
    fields = {PREFIX + field.name.upper(): field for group in groups for field in msgspec.structs.fields(group)}
    given = {key: field.type for key, field in sorted(fields.items()) if key not in SET_BY_CHART}
    return record({key: msgspec.json.schema(type_) for key, type_ in given.items()})
