"""What NetworkPolicies let through, worked out as Kubernetes defines it."""

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from tests.chart.rendering import NAMESPACE, Manifest, Rendered, selects

NAME = "kubernetes.io/metadata.name"


class End(msgspec.Struct, frozen=True):
    """One end of a connection: a pod, or an address outside of the cluster."""

    address: str = ""
    """Empty for a pod."""
    namespace: str = ""
    labels: Mapping[str, str] = {}
    ports: Mapping[str, int] = {}
    """What the pod's port names stand for."""


class Policies(msgspec.Struct, frozen=True):
    """All policies that there are; a pod that none selects is open."""

    policies: tuple[Manifest, ...]

    def let(self, source: End, destination: End, port: int, protocol: str = "TCP") -> bool:
        """Whether a connection comes about: the source's policies and the destination's have to let it."""
        return self.let_out(source, destination, port, protocol) and self.let_in(source, destination, port, protocol)

    def let_out(self, source: End, destination: End, port: int, protocol: str = "TCP") -> bool:
        """Whether the source's policies let it."""
        return self._let("Egress", source, destination, (destination, port, protocol))

    def let_in(self, source: End, destination: End, port: int, protocol: str = "TCP") -> bool:
        """Whether the destination's policies let it."""
        return self._let("Ingress", destination, source, (destination, port, protocol))

    def _let(self, direction: str, pod: End, peer: End, target: tuple[End, int, str]) -> bool:
        deciding = [policy for policy in self.policies if _selects(policy, pod) and direction in _types(policy)]
        rules = [rule for policy in deciding for rule in policy["spec"].get(direction.lower(), ())]
        peers = "from" if direction == "Ingress" else "to"
        return not deciding or any(
            _has_port(rule.get("ports", ()), *target) and _has_peer(rule.get(peers, ()), pod.namespace, peer)
            for rule in rules
        )


def of(rendered: Rendered) -> Policies:
    """Take a release's policies."""
    return Policies(tuple(rendered.of("NetworkPolicy")))


def pods_of(rendered: Rendered) -> dict[str, End]:
    """Give the ends that a release's pods are, by component."""
    return {pod.component: End(namespace=NAMESPACE, labels=pod.labels, ports=pod.ports()) for pod in rendered.pods()}


def _selects(policy: Manifest, pod: End) -> bool:
    here = not pod.address and policy["metadata"]["namespace"] == pod.namespace
    return here and selects(policy["spec"]["podSelector"], pod.labels)


def _types(policy: Manifest) -> list[str]:
    """Where it does not say it, a policy decides on what comes in, and on what goes out if it has rules for that."""
    implied = ["Ingress", "Egress"] if "egress" in policy["spec"] else ["Ingress"]
    found: list[str] = policy["spec"].get("policyTypes", implied)
    return found


def _has_port(ports: Iterable[Manifest], destination: End, port: int, protocol: str) -> bool:
    ports = list(ports)
    return not ports or any(
        each.get("protocol", "TCP") == protocol and _number(each.get("port", port), destination) == port
        for each in ports
    )


def _number(port: str | int, destination: End) -> int | None:
    return destination.ports.get(port) if isinstance(port, str) else port


def _has_peer(peers: Iterable[Manifest], namespace: str, end: End) -> bool:
    peers = list(peers)
    return not peers or any(_is_peer(peer, namespace, end) for peer in peers)


def _is_peer(peer: Mapping[str, Any], namespace: str, end: End) -> bool:
    if "ipBlock" in peer:
        block = ipaddress.ip_network(peer["ipBlock"]["cidr"])
        return bool(end.address) and ipaddress.ip_address(end.address) in block
    if end.address:
        return False
    in_namespace = (
        selects(peer["namespaceSelector"], {NAME: end.namespace})
        if "namespaceSelector" in peer
        else end.namespace == namespace
    )
    return in_namespace and selects(peer.get("podSelector", {}), end.labels)
