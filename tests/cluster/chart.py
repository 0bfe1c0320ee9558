"""The chart's operator in a cluster: its account and its permissions, exactly as Helm would install them."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any

import helm_python as helm
import msgspec
import yaml
from tests.cluster.control_plane.cluster import ControlPlane
from tests.cluster.control_plane.kubectl import Kubectl

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "the-eye"
CRDS = CHART / "crds"
CRD = "crd/validatorrules.the-eye.io"
RELEASE = "the-eye"

PERMITTING = {"ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"}

Permission = tuple[str, str, str]
"""API group, resource with its subresource, and verb."""


class Release(msgspec.Struct, frozen=True):
    """One installation."""

    namespace: str
    rule_namespaces: tuple[str, ...]
    objects: tuple[dict[str, Any], ...]

    @property
    def account(self) -> str:
        """The operator's service account."""
        (account,) = [found["metadata"]["name"] for found in self.objects if found["kind"] == "ServiceAccount"]
        return str(account)

    @property
    def user(self) -> str:
        """Who the operator is to the API server."""
        return f"system:serviceaccount:{self.namespace}:{self.account}"

    @property
    def ruleset(self) -> str:
        """Name of the index's ConfigMap."""
        names = [name for rule in self.role_rules() for name in rule.get("resourceNames", [])]
        return str(min(names, key=len))

    def role_rules(self) -> list[dict[str, Any]]:
        """Give the rules of all Roles; a deletion from one is a permission less."""
        return [rule for found in self.objects if found["kind"] == "Role" for rule in found["rules"]]

    def permissions(self) -> set[Permission]:
        """Give what the Roles allow."""
        return {
            (group, resource, verb)
            for rule in self.role_rules()
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
        }

    def without(self, permission: Permission) -> "Release":
        """Make one whose Roles lack a permission."""
        group, resource, verb = permission
        objects = msgspec.json.decode(msgspec.json.encode(self.objects), type=tuple[dict[str, Any], ...])
        for role in objects:
            for rule in role.get("rules", []):
                if rule["apiGroups"] == [group] and rule["resources"] == [resource]:
                    rule["verbs"] = [each for each in rule["verbs"] if each != verb]
            if "rules" in role:
                role["rules"] = [rule for rule in role["rules"] if rule["verbs"]]
        return msgspec.structs.replace(self, objects=objects)

    def apply(self, kubectl: Kubectl) -> None:
        """Install it, or change it to what this is."""
        kubectl("apply", "-f", "-", input=yaml.safe_dump_all(self.objects))


def render(namespace: str, rule_namespaces: Sequence[str] = ()) -> Release:
    """Render the operator's account and permissions."""
    values = {"operator": {"ruleNamespaces": list(rule_namespaces)}}
    with helm.Chart.load(str(CHART)) as chart:
        rendered = chart.render(values, name=RELEASE, namespace=namespace)
    texts = [text for path, text in rendered.items() if path.endswith(".yaml")]
    objects = tuple(found for text in texts for found in yaml.safe_load_all(text) if found and _permits(found))
    return Release(namespace, tuple(rule_namespaces) or (namespace,), objects)


def _permits(found: dict[str, Any]) -> bool:
    component = found["metadata"].get("labels", {}).get("app.kubernetes.io/component")
    return component == "operator" and found["kind"] in PERMITTING


@contextmanager
def namespaces(control_plane: ControlPlane, count: int) -> Iterator[list[str]]:
    """Make namespaces for a block; they go after it, without being waited for."""
    kubectl = control_plane.kubectl
    names = [f"eye-{token_hex(4)}" for _ in range(count)]
    with ExitStack() as ending:
        for name in names:
            kubectl("create", "namespace", name)
            ending.callback(kubectl, "delete", "namespace", name, "--wait=false")
        for name in names:
            if control_plane.controllers:  # without it no pod gets in
                kubectl("wait", "--for=create", "--timeout=30s", "serviceaccount/default", namespace=name)
        yield names


def install_definition(kubectl: Kubectl) -> None:
    """Install the definition of ValidatorRules, and return when the API server serves them."""
    kubectl("apply", "--server-side", "-f", str(CRDS))
    kubectl("wait", "--for=condition=Established", "--timeout=30s", CRD)


def delete_definition(kubectl: Kubectl) -> None:
    """Delete the definition, and with it all ValidatorRules."""
    kubectl("delete", CRD, "--ignore-not-found", "--timeout=30s")


def rule(name: str, *, elements: Iterable[str] = ("buy button",), **spec: Any) -> dict[str, Any]:
    """Write down a rule: an event's element is one of these."""
    schema = {"type": "object", "required": ["element"], "properties": {"element": {"enum": list(elements)}}}
    match = {"category": "page interaction", "name": "cta click"}
    return {
        "apiVersion": "the-eye.io/v1alpha1",
        "kind": "ValidatorRule",
        "metadata": {"name": name},
        "spec": {"match": match, "schema": schema, **spec},
    }
