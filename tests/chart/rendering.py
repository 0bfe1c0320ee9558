"""The chart as Helm renders it, and what one asks of what comes out."""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import helm_python as helm
import msgspec
import yaml
from tests.chart.values import CHART

Manifest = dict[str, Any]

NAMESPACE = "shop"
RELEASE = "the-eye"

SHAPES = {
    str(path.relative_to(CHART)): path
    for path in (*sorted(CHART.glob("ci/*-values.yaml")), *sorted(CHART.glob("examples/*/values.yaml")))
}
"""Values of each shape that is supported, by their file's name."""

POD_TEMPLATES: dict[str, tuple[str, ...]] = {
    "Pod": (),
    "Deployment": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "Job": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
}


class Pod(msgspec.Struct, frozen=True):
    """A pod as its controller would make it."""

    owner: str
    """Kind and name of what makes it."""
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    spec: Manifest

    @property
    def component(self) -> str:
        """What it is of the release."""
        return self.labels["app.kubernetes.io/component"]

    def containers(self) -> list[Manifest]:
        """Give all its containers."""
        return [*self.spec.get("initContainers", ()), *self.spec["containers"]]

    def ports(self) -> dict[str, int]:
        """Give the ports that have a name."""
        return {
            port["name"]: port["containerPort"]
            for container in self.containers()
            for port in container.get("ports", ())
        }

    def volumes(self) -> dict[str, Manifest]:
        """Give its volumes by name."""
        return {volume["name"]: volume for volume in self.spec.get("volumes", ())}


class Rendered(msgspec.Struct, frozen=True):
    """What a release consists of."""

    manifests: tuple[Manifest, ...]
    notes: str

    def of(self, kind: str) -> list[Manifest]:
        """Give the objects of a kind."""
        return [manifest for manifest in self.manifests if manifest["kind"] == kind]

    def one(self, kind: str, name: str) -> Manifest:
        """Give an object."""
        (found,) = [manifest for manifest in self.of(kind) if manifest["metadata"]["name"] == name]
        return found

    def names(self) -> set[str]:
        """Give kind and name of all objects; a hash in a name is left out."""
        return {re.sub(r"-[0-9a-f]{8,10}(?=$|-)", "", f"{m['kind']}/{m['metadata']['name']}") for m in self.manifests}

    def pods(self) -> list[Pod]:
        """Give a pod of each kind."""
        return [pod for manifest in self.manifests if (pod := _pod(manifest)) is not None]

    def pod(self, component: str) -> Pod:
        """Give a component's pod."""
        (found,) = [pod for pod in self.pods() if pod.component == component]
        return found


def _pod(manifest: Manifest) -> Pod | None:
    if manifest["kind"] not in POD_TEMPLATES:
        return None
    template = manifest
    for key in POD_TEMPLATES[manifest["kind"]]:
        template = template[key]
    metadata = template["metadata"]
    owner = f"{manifest['kind']}/{manifest['metadata']['name']}"
    return Pod(owner, metadata.get("labels", {}), metadata.get("annotations", {}), template["spec"])


def shape(name: str) -> Manifest:
    """Read the values of a shape."""
    return _read(SHAPES[name])


def _read(path: Path) -> Manifest:
    found: Manifest | None = yaml.safe_load(path.read_text())
    return found or {}


@cache
def chart() -> helm.Chart:
    """Load the chart once."""
    return helm.Chart.load(str(CHART))


def render(values: Mapping[str, Any] | None = None, name: str = RELEASE, namespace: str = NAMESPACE) -> Rendered:
    """Render the chart with values, after the schema has let them through."""
    return _render(msgspec.json.encode(values or {}), name, namespace)


@cache
def _render(values: bytes, name: str, namespace: str) -> Rendered:
    decoded = msgspec.json.decode(values)
    chart().validate_schema(decoded)
    rendered = chart().render(decoded, name=name, namespace=namespace)
    notes = next(text for path, text in rendered.items() if path.endswith("NOTES.txt"))
    texts = [text for path, text in rendered.items() if path.endswith(".yaml")]
    return Rendered(tuple(found for text in texts for found in _documents(text)), notes)


class _Unique(yaml.CSafeLoader):
    """Refuses a key that comes twice, which Kubernetes would take for a mistake and YAML does not."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        keys = [key.value for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"a key comes twice at {node.start_mark}"
        return super().construct_mapping(node, deep)


def _documents(text: str) -> Iterator[Manifest]:
    for found in yaml.load_all(text, _Unique):
        if found:
            yield found


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a label selector, as Kubernetes writes it, selects labels."""
    wanted: Mapping[str, str] = selector.get("matchLabels", {})
    return wanted.items() <= labels.items() and all(
        _meets(expression, labels) for expression in selector.get("matchExpressions", ())
    )


def _meets(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    value, values = labels.get(expression["key"]), expression.get("values", ())
    match expression["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
    raise AssertionError(expression)
