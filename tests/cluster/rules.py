"""Rules in a cluster and what became of them, as an administrator sees it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx2
from lightkube import Client, KubeConfig
from lightkube.generic_resource import create_namespaced_resource
from lightkube.resources.core_v1 import ConfigMap, Event, Pod
from tests.cluster.control_plane.cluster import ControlPlane

from the_eye.rules.shards import INDEX, MAX_SHARDS, RuleSetIndex, Shard, read_index, read_layout

ValidatorRules = create_namespaced_resource("the-eye.io", "v1alpha1", "ValidatorRule", "validatorrules")

CALL_SECONDS = 20.0
MANAGER = "the-eye-operator"

BAD_EXPRESSION = [{"expression": "event.data.element.startsWith('a') +"}]
"""Validations that only compiling shows to be bad: the definition takes them."""


def administrator(control_plane: ControlPlane) -> Client:
    """Make a client that may do everything; to be closed."""
    config = KubeConfig.from_file(str(control_plane.kubeconfig)).get()
    return Client(config=config, timeout=httpx2.Timeout(CALL_SECONDS), trust_env=False)


@contextmanager
def seen_in(control_plane: ControlPlane) -> Iterator["Cluster"]:
    """Look at a cluster for a block."""
    with administrator(control_plane) as client:
        yield Cluster(client)


class Cluster:
    """What there is to see."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def rule(self, namespace: str, name: str) -> dict[str, Any]:
        """Read a rule."""
        return dict(self.client.get(ValidatorRules, name, namespace=namespace))

    def rules(self, namespace: str) -> list[dict[str, Any]]:
        """Read all rules of a namespace."""
        return [dict(rule) for rule in self.client.list(ValidatorRules, namespace=namespace, chunk_size=500)]

    def conditions(self, namespace: str, name: str) -> dict[str, dict[str, Any]]:
        """Read a rule's conditions, by type."""
        return conditions(self.rule(namespace, name))

    def settled(self, namespace: str, name: str, generation: int) -> bool:
        """Whether the operator has said something of a generation of a rule."""
        status = self.rule(namespace, name).get("status") or {}
        return status.get("observedGeneration") == generation

    def published(self, namespace: str, ruleset: str) -> "Published | None":
        """Read the published ruleset, which must be whole at every moment; None before there is one."""
        # One list, and so one moment of the cluster.
        listed = self.client.list(ConfigMap, namespace=namespace, labels={"app.kubernetes.io/managed-by": MANAGER})
        found = {(found.metadata and found.metadata.name) or "": found.data or {} for found in listed}
        if ruleset not in found:
            return None
        slots = {slot: found.get(f"{ruleset}-{slot}", {}) for slot in range(MAX_SHARDS)}
        return Published(
            found[ruleset],
            {slot: {name: text.encode() for name, text in data.items()} for slot, data in slots.items() if data},
        )

    def pod_annotations(self, namespace: str, name: str) -> dict[str, str]:
        """Read a pod's annotations."""
        metadata = self.client.get(Pod, name, namespace=namespace).metadata
        return {} if metadata is None else metadata.annotations or {}

    def events(self, namespace: str, name: str) -> list[Event]:
        """Read the Kubernetes Events about a rule, in the order in which they came."""
        fields: dict[str, Any] = {"involvedObject.kind": "ValidatorRule", "involvedObject.name": name}
        found = list(self.client.list(Event, namespace=namespace, fields=fields))
        return sorted(found, key=lambda event: int(event.metadata.resourceVersion or 0))


class Published:
    """A ruleset in ConfigMaps."""

    def __init__(self, index: Mapping[str, str], slots: Mapping[int, Mapping[str, bytes]]) -> None:
        assert index.keys() == {INDEX}
        recovered = read_layout(slots, index[INDEX].encode())
        assert recovered.problems == ()
        read = read_index(index[INDEX].encode())
        assert isinstance(read, RuleSetIndex)
        self.index = read
        self.slots: Mapping[int, Shard] = recovered.layout.slots
        self.files = slots
        """All that is in the slots' ConfigMaps, what the index does not name too."""
        self.rules = {rule.id: rule for rule in recovered.rules}

    @property
    def generations(self) -> dict[str, int]:
        """The generation of each rule in force, by id."""
        return {id_: rule.metadata.generation for id_, rule in self.rules.items()}

    @property
    def leftovers(self) -> set[str]:
        """Files of the slots that the index does not name."""
        return {name for files in self.files.values() for name in files} - set(self.index.shards)


def conditions(rule: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Give a rule's conditions, by type."""
    status = rule.get("status") or {}
    return {condition["type"]: condition for condition in status.get("conditions") or ()}
