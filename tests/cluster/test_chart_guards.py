"""An upgrade that cannot be made of what runs is refused with a sentence, and what can is not.

The chart is rendered for an upgrade, with Helm looking into the cluster, and nothing of it is applied.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import helm_python as helm
import msgspec
import pytest
import yaml
from tests.cluster.chart import CHART, CRD, RELEASE, install_definition, namespaces
from tests.cluster.control_plane.cluster import ControlPlane
from tests.cluster.control_plane.kubectl import Kubectl

Values = Mapping[str, Any]

OWN_DATABASE: Values = {"database": {"existingSecret": "ours"}}
OWN_REDIS: Values = {"redis": {"existingSecret": "ours"}}
OWN_STORES: Values = {"tryOut": {"enabled": False}, **OWN_DATABASE, **OWN_REDIS}
KEDA: Values = {
    "worker": {
        "autoscaling": {"enabled": False},
        "keda": {"enabled": True, "serverAddress": "http://prometheus:9090"},
    }
}


class Running(msgspec.Struct, frozen=True):
    """What is in a namespace, and the chart rendered with it in view."""

    control_plane: ControlPlane
    namespace: str

    def apply(self, values: Values, *kinds: str) -> None:
        """Have the objects of these kinds as an installation with these values has them."""
        rendered = self._render(values, is_upgrade=False)
        found = [document for text in rendered.values() for document in yaml.safe_load_all(text) if document]
        wanted = yaml.safe_dump_all([document for document in found if document["kind"] in kinds])
        self.control_plane.kubectl("apply", "-f", "-", namespace=self.namespace, input=wanted)

    def upgrade(self, values: Values) -> str:
        """Render an upgrade; gives the sentence that it is refused with, or nothing."""
        try:
            self._render(values, is_upgrade=True)
        except helm.HelmRenderError as refused:
            return str(refused)
        return ""

    def _render(self, values: Values, *, is_upgrade: bool) -> dict[str, str]:
        with (
            helm.Chart.load(str(CHART)) as chart,
            helm.Config(kubeconfig_path=self.control_plane.kubeconfig, namespace=self.namespace) as config,
        ):
            rendered = config.render(chart, dict(values), name=RELEASE, namespace=self.namespace, is_upgrade=is_upgrade)
        return {path: text for path, text in rendered.items() if path.endswith(".yaml")}


@pytest.fixture
def running(control_plane: ControlPlane) -> Iterator[Running]:
    """A namespace in which nothing is yet."""
    with namespaces(control_plane, 1) as (name,):
        yield Running(control_plane, name)


def test_volumes_of_a_store_to_try_out_stay_as_they_are(running: Running) -> None:
    running.apply({}, "Deployment", "StatefulSet")

    assert running.upgrade({}) == ""
    larger = running.upgrade({"tryOut": {"postgres": {"size": "20Gi"}}})
    assert "tryOut.postgres.size is 20Gi, and the volume that is there has 10Gi" in larger
    assert f"kubectl --namespace {running.namespace} delete statefulset the-eye-postgres --cascade=orphan" in larger
    elsewhere = running.upgrade({"tryOut": {"persistence": {"storageClassName": "fast"}}})
    assert 'tryOut.persistence.storageClassName is "fast", and that of the-eye-' in elsewhere
    assert "with a volume" in running.upgrade({"tryOut": {"persistence": {"enabled": False}}})


@pytest.mark.parametrize("size", ["5Gi", "5120Mi", "5368709120"])
def test_a_size_may_be_written_in_any_unit(running: Running, size: str) -> None:
    running.apply({"tryOut": {"valkey": {"size": size}}}, "Deployment", "StatefulSet")

    assert running.upgrade({}) == ""


def test_a_store_without_a_volume_is_not_given_one(running: Running) -> None:
    without: Values = {"tryOut": {"persistence": {"enabled": False}}}
    running.apply(without, "Deployment", "StatefulSet")

    assert running.upgrade(without) == ""
    assert "without a volume" in running.upgrade({})


def test_a_stateful_set_may_be_replaced_by_the_way_that_the_sentence_names(running: Running, kubectl: Kubectl) -> None:
    running.apply({}, "Deployment", "StatefulSet")
    claim = "persistentvolumeclaim/data-the-eye-postgres-0"
    kubectl("wait", "--for=create", "--timeout=60s", claim, namespace=running.namespace)
    kubectl("delete", "statefulset", "the-eye-postgres", "--cascade=orphan", namespace=running.namespace)

    assert running.upgrade({"tryOut": {"postgres": {"size": "20Gi"}}}) == ""


@pytest.mark.parametrize(("own", "store"), [(OWN_DATABASE, "postgres"), (OWN_REDIS, "valkey")])
def test_an_upgrade_that_forgets_a_store_of_ones_own_begins_with_no_empty_one(
    running: Running, own: Values, store: str
) -> None:
    running.apply(own, "Deployment")

    assert running.upgrade(own) == ""
    assert f"which Secret ours names, and this upgrade would take a {store} to try out" in running.upgrade({})


def test_stores_to_try_out_may_be_given_another_secret(running: Running) -> None:
    """They go on with the volumes that they have; whether the passwords are the same is for the person to see to."""
    running.apply({}, "Deployment", "StatefulSet")

    assert running.upgrade({"tryOut": {"existingSecret": "passwords"}}) == ""


@pytest.mark.parametrize(("own", "store"), [(OWN_DATABASE, "postgres"), (OWN_REDIS, "valkey")])
def test_what_a_store_to_try_out_holds_is_not_left_by_mistake(running: Running, own: Values, store: str) -> None:
    running.apply({}, "Deployment", "StatefulSet")

    assert f"the-eye-{store} is still there" in running.upgrade(own)
    assert "is still there" in running.upgrade(OWN_STORES)
    assert running.upgrade({**own, "tryOut": {"leave": True}}) == ""
    assert running.upgrade({**OWN_STORES, "tryOut": {"enabled": False, "leave": True}}) == ""


def test_the_definition_of_rules_is_one_releases(running: Running, kubectl: Kubectl) -> None:
    """Whether it may be taken over when it is nobody's is for Helm to see, who knows what it was asked for."""
    install_definition(kubectl)
    owner = ("meta.helm.sh/release-name={}", "meta.helm.sh/release-namespace={}")
    annotate = ("annotate", "--overwrite", CRD)
    try:
        assert running.upgrade({}) == ""
        kubectl(*annotate, owner[0].format(RELEASE), owner[1].format(running.namespace))
        assert running.upgrade({}) == ""
        kubectl(*annotate, owner[0].format("other"))
        assert f"belongs to release other in namespace {running.namespace}" in running.upgrade({})
        kubectl(*annotate, owner[0].format(RELEASE), owner[1].format("elsewhere"))
        assert "belongs to release the-eye in namespace elsewhere" in running.upgrade({})
        assert running.upgrade({"crds": {"enabled": False}}) == ""
    finally:
        kubectl(*annotate, *(each.removesuffix("={}") + "-" for each in owner))


def test_keda_comes_when_the_autoscaler_before_it_has_gone(running: Running, kubectl: Kubectl) -> None:
    running.apply({}, "Deployment", "StatefulSet", "HorizontalPodAutoscaler")

    refused = running.upgrade(KEDA)
    assert "while the HorizontalPodAutoscaler the-eye-worker is still there" in refused
    kubectl("delete", "horizontalpodautoscaler", "the-eye-worker", namespace=running.namespace)
    assert running.upgrade(KEDA) == ""
