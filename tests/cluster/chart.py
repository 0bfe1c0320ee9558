"""What the chart says of the operator and the workers: accounts and permissions, settings, labels and mounts.

Deployments are read and not applied: nothing here runs containers.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
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
DEFINITION = CHART / "files" / "validatorrules.the-eye.io.yaml"
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
    """The operator's account and its permissions."""
    settings: Mapping[str, str]
    """The operator's, without those that are secret."""
    worker_labels: Mapping[str, str]
    """Labels of the workers' pods."""
    mounted: tuple[str, ...]
    """The ConfigMaps in which the workers' pods have their ruleset."""

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
        return self.settings["THE_EYE_OPERATOR_RULESET_NAME"]

    def permissions(self) -> set[tuple[str, str, str, str]]:
        """Give what the Roles allow: the namespace, and what it is there."""
        return {
            (role["metadata"]["namespace"], group, resource, verb)
            for role in self.objects
            for rule in role.get("rules", [])
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
        }

    def without(self, permission: Permission) -> "Release":
        """Make one none of whose Roles has a permission."""
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
        kubectl.apply(*self.objects)


def manifests(values: Mapping[str, Any], namespace: str) -> list[dict[str, Any]]:
    """Render the chart; gives all its objects."""
    with helm.Chart.load(str(CHART)) as chart:
        rendered = chart.render(dict(values), name=RELEASE, namespace=namespace)
    texts = [text for path, text in rendered.items() if path.endswith(".yaml")]
    return [found for text in texts for found in yaml.safe_load_all(text) if found]


def render(namespace: str, rule_namespaces: Sequence[str] = ()) -> Release:
    """Render the chart, and read what it says of operator and workers."""
    objects = manifests({"operator": {"ruleNamespaces": list(rule_namespaces)}}, namespace)
    operator, worker = (_pod(objects, part) for part in ("operator", "worker"))
    (rules,) = [volume["projected"]["sources"] for volume in worker["spec"]["volumes"] if volume["name"] == "rules"]
    return Release(
        namespace,
        tuple(rule_namespaces) or (namespace,),
        tuple(found for found in objects if found["kind"] in PERMITTING and component(found) == "operator"),
        {each["name"]: each["value"] for each in operator["spec"]["containers"][0]["env"] if "value" in each},
        worker["metadata"]["labels"],
        tuple(source["configMap"]["name"] for source in rules),
    )


def component(found: dict[str, Any]) -> str | None:
    """Say what part of The Eye an object belongs to."""
    name: str | None = found["metadata"].get("labels", {}).get("app.kubernetes.io/component")
    return name


def _pod(objects: list[dict[str, Any]], part: str) -> dict[str, Any]:
    """Find the pod of a part's Deployment."""
    (pod,) = [
        found["spec"]["template"] for found in objects if found["kind"] == "Deployment" and component(found) == part
    ]
    found_pod: dict[str, Any] = pod
    return found_pod


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
            # Without it no pod gets in. A controller makes it too, but is slow after the API server has been away.
            kubectl("create", "serviceaccount", "default", namespace=name, check=False)
        yield names


def install_definition(kubectl: Kubectl) -> None:
    """Install the definition of ValidatorRules, and return when the API server serves them."""
    kubectl("apply", "--server-side", "-f", str(DEFINITION))
    kubectl("wait", "--for=condition=Established", "--timeout=90s", CRD)


def delete_definition(kubectl: Kubectl) -> None:
    """Delete the definition, and with it all ValidatorRules."""
    kubectl("delete", CRD, "--ignore-not-found", "--timeout=90s")


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
